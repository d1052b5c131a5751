"""Becomes another program that dies with its parent. Run as a script by a bare Python; Linux only, as the ranks are.

    python -I -S _child.py PARENT FOLDER OUTPUT PROGRAM [ARGUMENT…]

PARENT: the process that must not have died already, 0 for any. FOLDER: where the program works. OUTPUT: a file that takes what it prints, or - .
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    parent, folder, output, *command = sys.argv[1:]
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if int(parent) not in (0, os.getppid()):
        sys.exit("the parent has died")
    os.chdir(folder)
    if output != "-":
        file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(file, 1)
        os.dup2(file, 2)
        os.close(file)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
