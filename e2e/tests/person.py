"""A person at a terminal: starts a shell, types, makes the window larger, presses Ctrl-C, leaves."""
import fcntl, os, pty, select, signal, struct, sys, termios, time


def size(fd, rows, columns):
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


ours, theirs = pty.openpty()
size(theirs, 30, 100)
before = termios.tcgetattr(theirs)
pid = os.fork()
if pid == 0:
    os.setsid()
    fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)
    for fd in (0, 1, 2):
        os.dup2(theirs, fd)
    os.execv(sys.argv[1], sys.argv[1:])
seen = b""


def expect(what, patience=30):
    global seen
    end = time.time() + patience
    while what not in seen:
        left = end - time.time()
        if left <= 0:
            # What is left would hold our own output open.
            os.kill(pid, signal.SIGKILL)
            raise AssertionError((what, seen))
        if select.select([ours], [], [], left)[0]:
            seen += os.read(ours, 65536)
    seen = seen.split(what, 1)[1]


def type_in(text):
    os.write(ours, text)


type_in(b"stty size; echo T=$TERM\r")
expect(b"30 100")
expect(b"T=vt100")
size(theirs, 40, 120)
os.kill(pid, signal.SIGWINCH)
# What is typed is echoed; the quotes are not in what the shell writes.
type_in(b"while [ \"$(stty size)\" != '40 120' ]; do sleep 0.01; done; echo re''sized\r")
expect(b"resized")
# Only what has answered is surely what Ctrl-C goes to, and not the shell on its way there.
type_in(b"echo st''arted; cat\r")
expect(b"started")
type_in(b"mirror\r")
expect(b"mirror")
expect(b"mirror")
type_in(b"\x03")
expect(b"^C")
expect(b"$ ")
type_in(b"echo a''live; exit 9\r")
expect(b"alive")
status = os.waitpid(pid, 0)[1]
assert os.waitstatus_to_exitcode(status) == 9, status
assert termios.tcgetattr(theirs) == before, "the terminal is not as it was"
