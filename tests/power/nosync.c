/* Sync calls that succeed at once, preloaded into the checkers: their images live for a second. Never under the server.
 * What is no file or directory is left to the kernel, and so is sync_file_range: sled's self-test asks how they fail. */
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
