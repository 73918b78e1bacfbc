/* A disk that fails when it is told to, preloaded into a server. $FAILING_DISK names a folder: the file `sync` in it says which fdatasync or
 * fsync from now on fails with EIO, 1 for the next; `write` the same for pwrite; "always" for each of them. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static int fails(const char *what) {
    const char *dir = getenv("FAILING_DISK");
    char path[4096], text[32] = {0};
    if (!dir || snprintf(path, sizeof path, "%s/%s", dir, what) >= (int)sizeof path) return 0;
    int fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC, 0);
    if (fd < 0) return 0;
    long left = 0;
    if (syscall(SYS_read, fd, text, sizeof text - 1) > 0) left = strcmp(text, "always") ? atol(text) : 1L << 40;
    if (left > 0 && left < 1L << 40) {
        int n = snprintf(text, sizeof text, "%ld", left - 1);
        syscall(SYS_ftruncate, fd, 0);
        syscall(SYS_pwrite64, fd, text, (size_t)n, 0);
    }
    syscall(SYS_close, fd);
    if (left != 1 && left != 1L << 40) return 0;
    errno = EIO;
    return 1;
}

int fdatasync(int fd) { return fails("sync") ? -1 : (int)syscall(SYS_fdatasync, fd); }
int fsync(int fd) { return fails("sync") ? -1 : (int)syscall(SYS_fsync, fd); }
ssize_t pwrite64(int fd, const void *b, size_t n, off64_t o) { return fails("write") ? -1 : syscall(SYS_pwrite64, fd, b, n, o); }
ssize_t pwrite(int fd, const void *b, size_t n, off_t o) { return pwrite64(fd, b, n, o); }
