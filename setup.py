"""Builds the compiled modules; everything else is in pyproject.toml.

ERAFT_ONLY=resp,batch  compiles only those modules (development)
ERAFT_TRACE=1          line tracing and annotation: for coverage, never for benchmarks
"""

import os
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent
CORE = Path("eraft/_core")
TRACE = os.environ.get("ERAFT_TRACE") == "1"
ONLY = {name for name in os.environ.get("ERAFT_ONLY", "").split(",") if name}


def extensions() -> list[Extension]:
    names = sorted(path.stem for path in (ROOT / CORE).glob("*.pyx"))
    unknown = ONLY - set(names)
    if unknown:
        raise SystemExit(f"ERAFT_ONLY: no module {sorted(unknown)}; there are {names}")
    macros: list[tuple[str, str | None]] = []
    if TRACE:
        macros = [("CYTHON_TRACE_NOGIL", "1"), ("CYTHON_USE_SYS_MONITORING", "0")]
    return [
        Extension(
            f"eraft._core.{name}",
            [str(CORE / f"{name}.pyx")],
            depends=[str(path.relative_to(ROOT)) for path in (ROOT / CORE).glob("*.h")],
            include_dirs=[str(CORE)],
            define_macros=macros,
            extra_compile_args=["-O2", "-g0"],
        )
        for name in names
        if not ONLY or name in ONLY
    ]


class CythonBuildExt(build_ext):
    """Runs Cython when extensions are built, so that an sdist never sees the C files."""

    def run(self) -> None:
        from Cython.Build import cythonize

        self.parallel = self.parallel or os.cpu_count()
        self.extensions = cythonize(
            self.extensions,
            annotate=TRACE,
            nthreads=self.parallel or 1,
            compiler_directives={"language_level": "3", "linetrace": TRACE},
        )
        for extension in self.extensions:
            # What setuptools' own constructor would have added.
            extension._needs_stub = False
        super().run()


setup(ext_modules=extensions(), cmdclass={"build_ext": CythonBuildExt})
