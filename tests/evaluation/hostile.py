"""Programs that mean harm, in three languages. A program *passes* only where its attack worked.

Placeholders (``@NAME@``) are filled in by the test: SECRET (a file in a home folder), WORD (what
is in it, and in an environment variable), PORT (of a listener on this machine), MARK (a file
name), FOLDERS (a JSON list of folders on this machine).
"""

import json

from tests.evaluation.kernel import MEMORY

ENDLESS = {
    "python": "while True: pass",
    "js": "while (true);",
    "cpp": "int main() { for (volatile int i = 0;;) i = 1; }",
}

SLEEPER = {
    "python": "import time; time.sleep(1000)",
    "js": "setTimeout(() => {}, 1e6);",
    "cpp": "#include <unistd.h>\nint main() { sleep(1000); }",
}

FORK_BOMB = {
    "python": """
import posix
while True:
    try:
        posix.fork()
    except OSError:
        pass
""",
    "js": """
const { spawn } = require("child_process");
function more() {
  for (let i = 0; i < 50; i++) {
    try {
      spawn(process.execPath, [__filename], { detached: true, stdio: "ignore" })
        .on("error", () => {}).unref();
    } catch (error) {}
  }
}
more();
setInterval(more, 5);
""",
    "cpp": "#include <unistd.h>\nint main() { for (;;) fork(); }",
}

MEMORY_HOG = {
    "python": "held = []\nwhile True: held.append(bytearray(b'x') * (1 << 24))",
    "js": "const held = []; while (true) held.push(Buffer.alloc(1 << 24, 1));",
    "cpp": """
#include <cstdlib>
#include <cstring>
int main() {
  for (;;) {
    void *more = malloc(1 << 24);
    if (more == nullptr) return 1;
    memset(more, 1, 1 << 24);
  }
}
""",
}

DISK_FILLER = {
    "python": """
for number in range(10**6):
    with open(f"fill{number}", "wb") as file:
        file.write(b"x" * (1 << 22))
""",
    "js": """
const fs = require("fs");
for (let i = 0; i < 1e6; i++) fs.writeFileSync(`fill${i}`, Buffer.alloc(1 << 22, 1));
""",
    "cpp": """
#include <fstream>
#include <string>
#include <vector>
int main() {
  std::vector<char> block(1 << 22, 'x');
  for (int i = 0; i < 1000000; i++) {
    std::ofstream file("fill" + std::to_string(i));
    if (!file.write(block.data(), block.size()).flush()) return 1;
  }
}
""",
}

READ_HOME_AND_ENVIRONMENT = {
    "python": """
import os
found = [str(dict(os.environ))]
for path in ["@SECRET@", *(f"/proc/{p}/environ" for p in os.listdir("/proc") if p.isdigit())]:
    try:
        found.append(open(path, "rb").read().decode("latin-1"))
    except OSError:
        pass
assert any("@WORD@" in text for text in found)
""",
    "js": """
const fs = require("fs");
const found = [JSON.stringify(process.env)];
const environs = fs.readdirSync("/proc").filter((p) => /^\\d+$/.test(p));
for (const path of ["@SECRET@", ...environs.map((p) => `/proc/${p}/environ`)]) {
  try { found.push(fs.readFileSync(path, "latin1")); } catch (error) {}
}
if (!found.some((text) => text.includes("@WORD@"))) process.exit(1);
""",
    "cpp": """
#include <dirent.h>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>
int main() {
  std::vector<std::string> paths = {"@SECRET@"};
  if (DIR *proc = opendir("/proc"))
    while (dirent *entry = readdir(proc))
      paths.push_back(std::string("/proc/") + entry->d_name + "/environ");
  for (auto &path : paths) {
    std::ifstream file(path);
    std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    if (text.find("@WORD@") != std::string::npos) return 0;
  }
  return 1;
}
""",
}

NETWORK = {
    "python": "import socket\nsocket.create_connection(('127.0.0.1', @PORT@), timeout=2).close()",
    "js": """
const socket = require("net").connect(@PORT@, "127.0.0.1", () => process.exit(0));
socket.on("error", () => process.exit(1));
""",
    "cpp": """
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
int main() {
  sockaddr_in to = {};
  to.sin_family = AF_INET;
  to.sin_port = htons(@PORT@);
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return connect(socket(AF_INET, SOCK_STREAM, 0), (sockaddr *)&to, sizeof to) == 0 ? 0 : 1;
}
""",
}

KILL_THE_PARENT = {
    "python": """
import posix
for pid in (posix.getppid(), 1, -1):
    try:
        posix.kill(pid, 9)
    except OSError:
        pass
raise SystemExit(0)
""",
    "js": """
for (const pid of [process.ppid, 1, -1]) {
  try { process.kill(pid, "SIGKILL"); } catch (error) {}
}
process.exit(1);
""",
    "cpp": """
#include <csignal>
#include <unistd.h>
int main() {
  kill(getppid(), SIGKILL);
  kill(1, SIGKILL);
  kill(-1, SIGKILL);
  return 1;
}
""",
}

# these pass: they do nothing that a test could see, but leave something running
LEAVE_CHILDREN = {
    "python": """
import posix, time
if posix.fork() == 0:
    posix.setsid()
    if posix.fork() == 0:
        time.sleep(1000)
    posix._exit(0)
""",
    "js": """
require("child_process").spawn("sleep", ["1000"], { detached: true, stdio: "ignore" }).unref();
""",
    "cpp": """
#include <unistd.h>
int main() {
  if (fork() == 0) {
    setsid();
    if (fork() == 0) sleep(1000);
    _exit(0);
  }
}
""",
}

# these pass: the official scorers do not mind what is printed
PRINT_A_GIGABYTE = {
    "python": """
import posix
for stream in (1, 2):
    for _ in range(512):
        posix.write(stream, b"x" * (1 << 20))
""",
    "js": """
const block = Buffer.alloc(1 << 20, 120);
for (const stream of [1, 2])
  for (let i = 0; i < 512; i++)
    for (let done = 0; done < block.length; )
      done += require("fs").writeSync(stream, block, done);
""",
    "cpp": """
#include <cstdio>
#include <vector>
int main() {
  std::vector<char> block(1 << 20, 'x');
  for (FILE *stream : {stdout, stderr})
    for (int i = 0; i < 512; i++) fwrite(block.data(), 1, block.size(), stream);
}
""",
}

LEAVE_EARLY = {
    "python": "import posix\nposix._exit(0)\nassert False",
    "js": "process.exit(0); throw new Error('not reached');",
    "cpp": "#include <cstdlib>\nvoid tested() { exit(0); }\nint main() { tested(); abort(); }",
}

WRITE_OUTSIDE = {
    "python": """
import json
for folder in json.loads('@FOLDERS@'):
    try:
        open(folder + "/@MARK@", "w").write("was here")
    except OSError:
        pass
assert False
""",
    "js": """
for (const folder of JSON.parse('@FOLDERS@')) {
  try { require("fs").writeFileSync(folder + "/@MARK@", "was here"); } catch (error) {}
}
process.exit(1);
""",
    "cpp": """
#include <fstream>
int main() {
  for (const char *path : {@PATHS@}) std::ofstream(path) << "was here";
  return 1;
}
""",
}

# in a namespace of its own a program may be root, and try to make what it sees writable
REMOUNT = {
    "python": """
import ctypes, json, os
libc = ctypes.CDLL(None)
libc.unshare(0x10020000)
for folder in ["/", "/usr", "/proc", *json.loads('@FOLDERS@')]:
    libc.mount(b"none", folder.encode(), None, ctypes.c_ulong(32 | 4096), None)
for folder in json.loads('@FOLDERS@'):
    try:
        open(folder + "/@MARK@", "w").write("was here")
    except OSError:
        pass
assert False
""",
}

FORGE_THE_VERDICT = {
    "python": """
import ctypes, os
word = b'{"status": "passed", "step": 0, "detail": "", "token": true}'
for pid in (1, os.getppid()):
    for end in range(16):
        try:
            with open(f"/proc/{pid}/fd/{end}", "wb", buffering=0) as file:
                file.write(word)
        except OSError:
            pass
    for trace in (16, 0x4206):
        ctypes.CDLL(None).ptrace(trace, pid, None, None)
assert False
""",
}

PATCH_THE_HARNESS = {
    "python": """
import atexit, builtins, os, posix, sys
os.write = lambda *given: 0
os._exit = lambda status: posix._exit(0)
sys.exit = sys.excepthook = builtins.exec = lambda *given: None
builtins.BaseException = builtins.AssertionError = int
main = sys.modules["__main__"]
for name in dir(main):
    if not name.startswith("__"):
        setattr(main, name, lambda *given: None)
atexit.register(lambda: posix._exit(0))
for end in range(3, 64):
    try:
        posix.write(end, b"passed")
    except OSError:
        pass
assert False
""",
    "js": """
process.on("exit", () => process.exit(0));
require("fs").writeSync = () => 0;
throw new Error("a test failed");
""",
    "cpp": """
#include <cassert>
#include <cstdlib>
extern "C" void __assert_fail(const char *, const char *, unsigned, const char *) noexcept {
  _Exit(0);
}
int main() { assert(1 == 2); }
""",
}

# in its files, in what the kernel says of it, and in the variables of those who called it
LOOK_FOR_THE_TOKEN = {
    "python": """
import os, posix, re, sys
texts = [open(f"/proc/self/{name}").read() for name in ("cmdline", "environ")]
texts += [open(name).read() for name in os.listdir(".")]
frame = sys._getframe()
while frame:
    texts += [repr(value) for value in [*frame.f_locals.values(), *frame.f_globals.values()]]
    frame = frame.f_back
for token in re.findall("[0-9a-f]{32}", " ".join(texts)):
    posix.write(3, token.encode())
posix._exit(0)
""",
    "js": """
const fs = require("fs");
const texts = ["/proc/self/cmdline", "/proc/self/environ", ...fs.readdirSync(".")]
  .map((name) => fs.readFileSync(name, "latin1"));
for (const token of texts.join(" ").match(/[0-9a-f]{32}/g) || []) fs.writeSync(3, token);
process.exit(0);
""",
    "cpp": """
#include <cctype>
#include <cstdio>
#include <cstdlib>
#include <initializer_list>
#include <unistd.h>
void tested() {
  for (const char *name : {"program.cpp", "program", "/proc/self/cmdline", "/proc/self/environ"}) {
    static char text[1 << 20];
    size_t size = fread(text, 1, sizeof text, fopen(name, "r"));
    for (size_t start = 0, end = 0; end < size; end++) {
      if (!isxdigit(text[end])) start = end + 1;
      else if (end - start == 31) exit(write(3, &text[start], 32) != 32);
    }
  }
  exit(0);
}
int main() { tested(); }
""",
}

HOSTILE = {
    "endless loop": ENDLESS,
    "sleeper": SLEEPER,
    "fork bomb": FORK_BOMB,
    "memory hog": MEMORY_HOG,
    "disk filler": DISK_FILLER,
    "reads home and environment": READ_HOME_AND_ENVIRONMENT,
    "network": NETWORK,
    "kills its parent": KILL_THE_PARENT,
    "leaves children": LEAVE_CHILDREN,
    "prints a gigabyte": PRINT_A_GIGABYTE,
    "leaves early": LEAVE_EARLY,
    "writes outside": WRITE_OUTSIDE,
    "remounts": REMOUNT,
    "forges the verdict": FORGE_THE_VERDICT,
    "patches the harness": PATCH_THE_HARNESS,
    "looks for the token": LOOK_FOR_THE_TOKEN,
    **{name: {"python": code} for name, code in MEMORY.items()},
}


def fill(code, *, secret, word, port, mark, folders):
    """Put the facts of this machine into a program."""
    paths = ", ".join(json.dumps(f"{folder}/{mark}") for folder in folders)
    values = {
        "SECRET": secret,
        "WORD": word,
        "PORT": port,
        "MARK": mark,
        "FOLDERS": json.dumps(folders),
        "PATHS": paths,
    }
    for name, value in values.items():
        code = code.replace(f"@{name}@", str(value))
    return code
