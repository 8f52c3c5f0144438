"""Running a transformation as one compiled program; everything that exists for speed."""
