/* Sync calls that do nothing, preloaded into the checkers only, because an image exists for a second. Never preloaded into the server.
 * Calls on descriptors that are neither a file nor a directory go to the kernel, and so does sync_file_range: sled's self-test checks how
 * these calls fail. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
static int file(int fd) { struct stat st; return fstat(fd, &st) == 0 && (S_ISREG(st.st_mode) || S_ISDIR(st.st_mode)); }
int fsync(int fd) { return file(fd) ? 0 : (int)syscall(SYS_fsync, fd); }
int fdatasync(int fd) { return file(fd) ? 0 : (int)syscall(SYS_fdatasync, fd); }
int syncfs(int fd) { (void)fd; return 0; }
void sync(void) {}
