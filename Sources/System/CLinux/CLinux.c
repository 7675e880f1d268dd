// The shims are header-only; the package manager wants one source file, and compiling it checks the headers.

#include "CLinux.h"
