"""Maps the folders of the repository onto the one installed package, `ulpgrad`, and builds its C++ extension.

The extension is optional: without a compiler the install succeeds and the Numba kernels carry everything. Files in
csrc/cpu/ are compiled once, those that show functions to Python about five at a time; files in csrc/cpu/isa/ and
csrc/cpu/ladder/ once per instruction set. Only what is stale is compiled again.
ULPGRAD_BUILD_CUDA=1 builds the CUDA kernels too, as ulpgrad._cuda, by the nvcc on the PATH (or in NVCC); instead of 1 it may name
architectures as CMake does: 80,90a-real,90-virtual. Without it they are compiled where they run, and no nvcc is needed.
ULPGRAD_SANITIZE=address,undefined builds with sanitizers (see `make test-sanitize`); CXX and CXXFLAGS have their usual meaning.
"""

import contextlib
import hashlib
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

ROOTS = {"ulpgrad": "engine", "ulpgrad.kernels": "kernels", "ulpgrad.bench": "bench"}
FOLDERS = ("csrc/cpu", "csrc/cpu/isa", "csrc/cpu/ladder", "csrc/cuda", "csrc/cuda/entry")
SHOWN = {f"ulpgrad.{folder.replace('/', '.')}": folder for folder in FOLDERS}

SOURCES = Path("csrc/cpu")
AVX2 = ["-mavx2", "-mfma", "-mf16c"]
AVX512 = [*AVX2, "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mprefer-vector-width=512"]
ON_X86 = platform.machine() in ("x86_64", "AMD64")
ISAS = {"portable": [], **({"avx2": AVX2, "avx512": AVX512} if ON_X86 else {})}
FLAGS = ["-std=c++17", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra", "-ffp-contract=fast", "-fno-math-errno",
         "-fno-trapping-math"]  # fmt: skip
SANITIZE = os.environ.get("ULPGRAD_SANITIZE", "")
OPTIMIZE = [f"-fsanitize={SANITIZE}", "-fno-omit-frame-pointer", "-g1", "-O1"] if SANITIZE else ["-O3"]
OPTIMIZE += shlex.split(os.environ.get("CXXFLAGS", ""))  # last, so that they win

CUDA = os.environ.get("ULPGRAD_BUILD_CUDA", "").strip()
CUDA_SOURCES = Path("csrc/cuda/entry")
CUDA_ARCHITECTURES = "80,90a,90-virtual"  # with code for all that are newer

WITHOUT_EXTENSION = """
ulpgrad: the C++ kernels were not built ({reason}).
ulpgrad works without them: Numba kernels take over. Slower are matmul and convolution (2x to 4x), attention, casts and
row operations; integer and 16-bit kernels most. With g++ or clang++ on the PATH (or in CXX), install again to get them.
"""


def packages() -> list[str]:
    """Every package below each root, by its installed name, and the C++ sources: `ulpgrad ladder` shows them, and those for
    GPUs are compiled where they run."""
    code = [name for root, folder in ROOTS.items() for name in [root, *(f"{root}.{p}" for p in find_packages(folder))]]
    return [*code, *SHOWN]


def find_compiler() -> list[str]:
    """CXX, else the first C++ compiler on the PATH."""
    given = shlex.split(os.environ.get("CXX", ""))
    for command in [given] if given else [["c++"], ["g++"], ["clang++"]]:
        if shutil.which(command[0]):
            return command
    raise CompileError(f"no C++ compiler: {given[0]} is not there" if given else "no C++ compiler on the PATH")


def generate_loops(folder: Path) -> None:
    """Write the elementwise loops, which follow from the table in kernels/elementwise."""
    package = Path("kernels/elementwise")
    found = spec_from_file_location("elementwise", package / "__init__.py", submodule_search_locations=[str(package)])
    sys.modules[found.name] = module_from_spec(found)
    import_module("elementwise.cpp_loops").generate(folder)


def is_private(text: str) -> bool:
    """Whether a source defines nothing that others see: all of it stands in one unnamed namespace."""
    return bool(re.search(r"^namespace ulpgrad {\nnamespace {\n(?!.*^namespace).*^}  // namespace\n}  // namespace ulpgrad\n\Z",
                          text, re.M | re.S))  # fmt: skip


def includes(source: Path, seen: set[Path] | None = None) -> set[Path]:
    """The headers beside a source that it includes, and that these include."""
    seen = set() if seen is None else seen
    for name in re.findall(r'^#include "(.*)"$', source.read_text(), re.M):
        header = source.parent / name
        if header.exists() and header not in seen:
            seen.add(header)
            includes(header, seen)
    return seen


def joined(sources: list[Path], folder: Path, most: int = 4) -> list[Path]:
    """Sources to compile, with those that show functions to Python as files that include a few of them: compiling pybind11's
    own functions takes eight seconds, most sources by themselves two. In a file like that each private source has a namespace
    of its own inside ours, so that names cannot meet, and there is one source at most that is not private; all headers come
    before, since that is done by a macro."""
    texts = {source: source.read_text() for source in sources}
    private = [source for source in sources if is_private(texts[source])]
    others = [source for source in sources if source not in private]
    shown = [source for source in others if SOURCES / "memory.h" in includes(source)]  # which includes pybind11
    groups = [[source] for source in shown] + [[] for _ in range(-(-len(private) // most) - len(shown))]
    for i, source in enumerate(private):
        groups[i * len(groups) // len(private)].append(source)
    units = []
    for group in groups:
        headers = {line: None for source in group for line in re.findall(r"^#include .*$", texts[source], re.M)}
        lines = list(headers)
        for source in group:
            own, text = f"ulpgrad::in_{source.stem}", f'#include "{source.name}"'
            if source in private:
                text = (
                    f"namespace {own} {{ using namespace ::ulpgrad; }}\n#define ulpgrad {own}\n{text}\n#undef ulpgrad"
                )
            lines.append(text)
        units.append(folder / f"unit_{group[0].stem}.cpp")
        text = "\n".join([*lines, ""])
        if not units[-1].exists() or units[-1].read_text() != text:
            units[-1].write_text(text)
    return [*units, *(source for source in others if source not in shown)]


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep two builds of one folder from mixing (where the system has file locks)."""
    with open(path, "w") as lock:
        with contextlib.suppress(ImportError):
            import fcntl

            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def run(command: list[str]) -> None:
    """Run a compiler command; its complaints become a CompileError, its warnings are shown."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise CompileError(f"{command[0]} failed\n{shlex.join(command)}\n{done.stdout}{done.stderr}")
    sys.stderr.write(done.stderr)


def is_stale(built: Path, command: str) -> bool:
    """Whether an object is missing, was built by another command, or is older than what it was built from."""
    needs, stamp = built.with_suffix(".d"), built.with_suffix(".command")
    if not (built.exists() and needs.exists() and stamp.exists() and stamp.read_text() == command):
        return True
    files = needs.read_text().replace("\\\n", " ").split(":", 1)[1].split()
    return any(not os.path.exists(f) or os.path.getmtime(f) > built.stat().st_mtime for f in files)


def compile_object(command: list[str], source: Path, built: Path) -> Path:
    """Compile one file if it is stale; the object appears only when it is whole."""
    built.parent.mkdir(parents=True, exist_ok=True)
    fresh = built.with_suffix(".new")
    full = [*command, "-MMD", "-MF", str(built.with_suffix(".d")), "-c", str(source), "-o", str(fresh)]
    if is_stale(built, shlex.join(full)):
        began = time.time()
        run(full)
        os.utime(fresh, (began, began))  # a source or header that is edited during compilation leaves the object stale
        fresh.replace(built)
        built.with_suffix(".command").write_text(shlex.join(full))
    return built


def leaks(built: Path, isa: str) -> list[str]:
    """Inline functions in an object of one instruction set, which the linker may merge with another's copy."""
    listing = subprocess.run(["nm", "--defined-only", str(built)], capture_output=True, text=True).stdout
    symbols = [line.split()[-2:] for line in listing.splitlines() if line.strip()]
    return [name for kind, name in symbols if kind in "WVu" and f"{len(isa)}{isa}" not in name and "DW.ref" not in name]


class BuildNative(build_ext):
    """Compiles csrc/cpu in parallel, with one set of flags per instruction set."""

    is_asked_for = "build_ext" in sys.argv  # by name, so a failure is a failure; an install goes on without

    def build_extension(self, ext: Extension) -> None:
        if ext.name == "ulpgrad._cuda":
            return build_cuda(Path(self.get_ext_fullpath(ext.name)))
        try:
            self.build_native(Path(self.get_ext_fullpath(ext.name)))
        except CompileError as error:
            if self.is_asked_for:
                ext.optional = False
                raise
            sys.stderr.write(f"{error}\n{WITHOUT_EXTENSION.format(reason=str(error).splitlines()[0])}\n")

    def build_native(self, target: Path) -> None:
        compiler = find_compiler()
        import pybind11  # only now: installs without a compiler do without it

        kind = hashlib.sha256(shlex.join([*compiler, SANITIZE, sys.version]).encode()).hexdigest()[:8]
        folder = Path("build/native") / kind
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / "lock"):
            generated = folder / "generated"
            generate_loops(generated)
            openmp = self.openmp_flags(compiler, folder)
            includes = ["-isystem", pybind11.get_include(), "-isystem", sysconfig.get_paths()["include"], "-Icsrc/cpu",
                        f"-I{generated}"]  # fmt: skip
            common = [*compiler, *FLAGS, *OPTIMIZE, *openmp, *includes, *(["-DULPGRAD_X86"] if ON_X86 else [])]
            told = f'-DULPGRAD_FLAGS="{shlex.join([*FLAGS, *OPTIMIZE, *openmp])}"'
            jobs = []  # those that take longest first, so that all cores end at once
            for source in joined(sorted(SOURCES.glob("*.cpp")), generated):
                defines = [told] if source.stem == "unit_module" else []
                jobs.append(([*common, *defines], source, folder / f"{source.stem}.o"))
            for source in [*sorted(SOURCES.glob("isa/*.cpp")), *sorted(SOURCES.glob("ladder/*.cpp"))]:
                for level, (isa, flags) in enumerate(ISAS.items()):
                    defines = [f"-DULPGRAD_ISA={isa}", f"-DULPGRAD_ISA_LEVEL={level}"]
                    jobs.append(
                        ([*common, *flags, *defines], source, folder / isa / f"{source.parent.name}-{source.stem}.o")
                    )
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                objects = list(pool.map(lambda job: compile_object(*job), jobs))
            if self.is_asked_for and not SANITIZE and shutil.which("nm"):
                for built in objects:
                    if built.parent.name in ISAS and (names := leaks(built, built.parent.name)):
                        raise CompileError(
                            f"{built}: not in its own namespace (see csrc/cpu/isa.h): {', '.join(names)}"
                        )
            fresh = folder / "_native.new"
            shared = ["-bundle", "-undefined", "dynamic_lookup"] if sys.platform == "darwin" else ["-shared"]
            run([*compiler, *OPTIMIZE, "-pthread", *openmp, *shared, *map(str, objects), "-o", str(fresh)])
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(fresh, target.with_suffix(".new"))
            target.with_suffix(".new").replace(target)  # in one step: running processes keep the old file

    @staticmethod
    def openmp_flags(compiler: list[str], folder: Path) -> list[str]:
        """-fopenmp where the compiler has it: loops are vectorised better, and OpenMP's limits on threads are known."""
        probe = folder / "probe.cpp"
        probe.write_text("#include <omp.h>\nint main() { return omp_get_max_threads() < 1; }\n")
        works = subprocess.run([*compiler, "-fopenmp", str(probe), "-o", str(folder / "probe")], capture_output=True)
        return ["-fopenmp"] if works.returncode == 0 else []


def generate_code(architecture: str) -> str:
    """nvcc's flag for an architecture: machine code for 90a or 90a-real, PTX for 90-virtual."""
    number, _, kind = architecture.strip().partition("-")
    return f"-gencode=arch=compute_{number},code={'compute' if kind == 'virtual' else 'sm'}_{number}"


def build_cuda(target: Path) -> None:
    """Compile csrc/cuda/entry with nvcc, and what Python sees of it with the C++ compiler; a failure is one of the install."""
    nvcc = os.environ.get("NVCC") or shutil.which("nvcc") or "/usr/local/cuda/bin/nvcc"
    if not shutil.which(nvcc):
        raise CompileError(
            "ULPGRAD_BUILD_CUDA is set, but there is no nvcc on the PATH, in NVCC or in /usr/local/cuda/bin"
        )
    import pybind11

    code = [generate_code(name) for name in (CUDA_ARCHITECTURES if CUDA == "1" else CUDA).split(",")]
    python = ["-isystem", pybind11.get_include(), "-isystem", sysconfig.get_paths()["include"]]
    folder = target.parent / "cuda.new"
    folder.mkdir(parents=True, exist_ok=True)
    jobs = [
        [nvcc, "-std=c++17", "-O3", *code, "-Xcompiler=-fPIC,-fvisibility=hidden", "-Icsrc/cuda", "-c", str(source)]
        for source in sorted(CUDA_SOURCES.glob("*.cu"))
    ]
    jobs += [[*find_compiler(), *FLAGS, "-O2", *python, "-c", str(CUDA_SOURCES / "module.cpp")]]
    try:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            objects = [str(folder / f"{Path(job[-1]).stem}.o") for job in jobs]
            list(pool.map(lambda job, built: run([*job, "-o", built]), jobs, objects))
        run([nvcc, "-shared", *code, *objects, "-o", str(folder / "linked")])
        (folder / "linked").replace(target)
    finally:
        shutil.rmtree(folder)


class BuildCuda(BuildNative):
    """`build_cuda`: only ulpgrad._cuda, beside what is built already."""

    def finalize_options(self) -> None:
        super().finalize_options()
        self.extensions = [ext for ext in self.extensions if ext.name == "ulpgrad._cuda"]


EXTENSIONS = [Extension("ulpgrad._native", sources=[], optional=True)]
EXTENSIONS += [Extension("ulpgrad._cuda", sources=[])] if CUDA else []

setup(
    packages=packages(),
    package_dir={**ROOTS, **SHOWN},
    package_data={"": ["py.typed", "*.json", "*.html", "*.css", "*.js", "*.txt", "*.cpp", "*.h", "*.cu", "*.cuh"]},
    ext_modules=EXTENSIONS,
    cmdclass={"build_ext": BuildNative, "build_cuda": BuildCuda},
)
