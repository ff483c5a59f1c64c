/* Asks the kernel something and prints the number of the error that it answers, 0 for none. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

/* Stands for the address of some memory of ours. */
#define SCRATCH 0x5c7a7c4
static char scratch[4096];

/* "number,a0,a1,..": one system call, in a process of its own, which it may change or end. */
static int call(const char *text)
{
    unsigned long n[7] = {0};
    char *at = (char *)text;
    for (int i = 0; i < 7 && *at; i++) {
        n[i] = strtoul(at, &at, 0);
        if (i && n[i] == SCRATCH)
            n[i] = (unsigned long)scratch;
        if (*at == ',')
            at++;
    }
    pid_t child = fork();
    if (child == 0) {
        alarm(5);
        long result = syscall(n[0], n[1], n[2], n[3], n[4], n[5], n[6]);
        _exit(result == -1 ? errno : 0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    return WIFSIGNALED(status) ? 1000 + WTERMSIG(status) : WEXITSTATUS(status);
}

/* A system call as a 32-bit program makes it. */
static int old_call(void)
{
#ifdef __x86_64__
    pid_t child = fork();
    if (child == 0) {
        long result = 20; /* getpid */
        __asm__ volatile("int $0x80" : "+a"(result) : : "memory");
        _exit(0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    return WIFSIGNALED(status) ? 1000 + WTERMSIG(status) : 0;
#else
    return -1;
#endif
}

static int tcp(const char *port)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(atoi(port))};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    return connect(fd, (struct sockaddr *)&to, sizeof to) == 0 ? 0 : errno;
}

static int abstract(const char *name)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    strncpy(to.sun_path + 1, name, sizeof to.sun_path - 2);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    socklen_t len = offsetof(struct sockaddr_un, sun_path) + 1 + strlen(name);
    return connect(fd, (struct sockaddr *)&to, len) == 0 ? 0 : errno;
}

static int make(const char *path)
{
    return open(path, O_WRONLY | O_CREAT, 0600) >= 0 ? 0 : errno;
}

static void cat(const char *path)
{
    char buffer[4096];
    FILE *file = fopen(path, "r");
    size_t n;
    while (file && (n = fread(buffer, 1, sizeof buffer, file)) > 0)
        fwrite(buffer, 1, n, stdout);
}

/* Children until there may be no more: prints how many there were and what came then. */
static void children(int most)
{
    int made = 0;
    while (made < most) {
        pid_t child = fork();
        if (child < 0)
            break;
        if (child == 0) {
            pause();
            _exit(0);
        }
        made++;
    }
    printf("%d %d\n", made, made < most ? errno : 0);
}

/* As many processes as there may be, each of which wants more, and this much memory before. */
static void bomb(int mebibytes)
{
    size_t size = (size_t)mebibytes << 20;
    puts("ready");
    fflush(stdout);
    for (;;) {
        if (fork() != 0)
            continue;
        char *memory = size ? malloc(size) : NULL;
        if (memory)
            memset(memory, 1, size);
    }
}

int main(int argc, char **argv)
{
    if (argc < 2)
        return 2;
    if (!strcmp(argv[1], "ids"))
        printf("%u %u\n", getuid(), geteuid());
    if (!strcmp(argv[1], "old"))
        printf("%d\n", old_call());
    for (int i = 2; i < argc; i++) {
        if (!strcmp(argv[1], "call"))
            printf("%d\n", call(argv[i]));
        else if (!strcmp(argv[1], "tcp"))
            printf("%d\n", tcp(argv[i]));
        else if (!strcmp(argv[1], "abstract"))
            printf("%d\n", abstract(argv[i]));
        else if (!strcmp(argv[1], "make"))
            printf("%d\n", make(argv[i]));
        else if (!strcmp(argv[1], "cat"))
            cat(argv[i]);
        else if (!strcmp(argv[1], "bomb"))
            bomb(atoi(argv[i]));
        else if (!strcmp(argv[1], "children"))
            children(atoi(argv[i]));
        fflush(stdout);
    }
    return 0;
}
