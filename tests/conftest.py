import atexit
import os
import shutil
import tempfile

import hypothesis

# MLX does not write its kernel cache atomically: every worker process gets a folder of its own, before MLX looks.
_folder = tempfile.mkdtemp(prefix="mlxopt-tests-")
os.environ["TMPDIR"] = _folder
tempfile.tempdir = _folder
atexit.register(shutil.rmtree, _folder, ignore_errors=True)

_common = hypothesis.settings(deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.register_profile("ci", _common, max_examples=20, derandomize=True, database=None)
hypothesis.settings.register_profile("long", _common, max_examples=500)
hypothesis.settings.load_profile("ci")
