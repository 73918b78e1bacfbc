/* Sync calls that succeed at once, preloaded into the checkers: their images live for a second. Never under the server. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <unistd.h>
int fsync(int fd) { (void)fd; return 0; }
int fdatasync(int fd) { (void)fd; return 0; }
int sync_file_range(int fd, off64_t o, off64_t l, unsigned f) { (void)fd; (void)o; (void)l; (void)f; return 0; }
int syncfs(int fd) { (void)fd; return 0; }
void sync(void) {}
