/* Known operations under the recorder, one of each kind; `replay.py verify` then compares its log with the real directory. */
#define _GNU_SOURCE
#include <assert.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>
static int T;
static void *thr(void *a)
{
    char b[64];
    for (int i = 0; i < 200; i++) {
        memset(b, 'a' + (int)(long)a, 64);
        assert(pwrite(T, b, 64, (long)a * 64 + i * 512) == 64);
        if (i % 50 == 0) fdatasync(T);
    }
    return 0;
}
int main(int c, char **v)
{
    (void)c;
    char ack[4096];
    snprintf(ack, sizeof ack, "%s.ack", v[1]);
    int A = open(ack, O_CREAT | O_WRONLY | O_APPEND, 0644);
    assert(A >= 0 && chdir(v[1]) == 0);
    assert(mkdir("sub", 0755) == 0);
    int f = open("sub/f", O_CREAT | O_RDWR, 0644), g = open("sub/../sub/f", O_WRONLY);
    assert(write(f, "hello ", 6) == 6 && write(f, "world", 5) == 5);
    int d = dup(f);
    assert(write(d, "!", 1) == 1);
    assert(pwrite(g, "J", 1, 0) == 1);
    dup2(g, 77);
    struct iovec io[2] = {{"ab", 2}, {"cd", 2}};
    assert(pwritev(77, io, 2, 100) == 4);
    assert(fsync(g) == 0 && write(A, "1\n", 2) == 2);
    assert(ftruncate(fcntl(f, F_DUPFD_CLOEXEC, 10), 102) == 0);
    int ap = open("app", O_CREAT | O_WRONLY | O_APPEND, 0600);
    assert(writev(ap, io, 2) == 4 && write(ap, "ef", 2) == 2 && pwrite(ap, "gh", 2, 0) == 2);
    assert(sync_file_range(ap, 0, 8, 7) == 0);
    assert(rename("app", "sub/app2") == 0);
    int x = open("x", O_CREAT | O_WRONLY, 0600);
    assert(write(x, "xx", 2) == 2 && unlink("x") == 0 && write(x, "yy", 2) == 2);
    close(x);
    x = open("y", O_CREAT | O_WRONLY, 0600); /* may reuse x's inode */
    assert(fallocate(x, 0, 0, 9000) == 0 && posix_fallocate(x, 9000, 10) == 0);
    assert(syscall(SYS_pwrite64, x, "raw", 3L, 5000L) == 3);
    int dd = open("sub", O_RDONLY | O_DIRECTORY);
    assert(fsync(dd) == 0);
    assert(renameat(dd, "app2", AT_FDCWD, "app3") == 0);
    T = open("threads", O_CREAT | O_RDWR | O_TRUNC, 0644);
    pthread_t t[8];
    for (long i = 0; i < 8; i++) pthread_create(&t[i], 0, thr, (void *)i);
    for (int i = 0; i < 8; i++) pthread_join(t[i], 0);
    if (fork() == 0) { pwrite(T, "child", 5, 1); _exit(0); }
    wait(0);
    int o = open("trunc", O_CREAT | O_WRONLY, 0644);
    write(o, "0123456789", 10); close(o);
    o = open("trunc", O_WRONLY | O_TRUNC);
    write(o, "abc", 3);
    mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, T, 0);
    int sp[2]; socketpair(AF_UNIX, SOCK_STREAM, 0, sp); assert(write(sp[0], "s", 1) == 1);
    assert(mkdir("gone", 0755) == 0 && rmdir("gone") == 0);
    assert(write(A, "2\n", 2) == 2);
    return 0;
}
