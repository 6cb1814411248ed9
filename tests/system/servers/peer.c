/* Answers each line with who is asking, as accept() and as getpeername() tell it.
 * peer 4|6|46 tcp|mptcp PORT [banner] */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#ifndef IPPROTO_MPTCP
#define IPPROTO_MPTCP 262
#endif

static void show(char *to, size_t room, struct sockaddr_storage *from)
{
    char text[INET6_ADDRSTRLEN] = "?";
    int port = 0;
    if (from->ss_family == AF_INET) {
        struct sockaddr_in *in = (void *)from;
        inet_ntop(AF_INET, &in->sin_addr, text, sizeof text);
        port = ntohs(in->sin_port);
    } else if (from->ss_family == AF_INET6) {
        struct sockaddr_in6 *in = (void *)from;
        inet_ntop(AF_INET6, &in->sin6_addr, text, sizeof text);
        port = ntohs(in->sin6_port);
    }
    snprintf(to, room, "%s %d", text, port);
}

int main(int argc, char **argv)
{
    if (argc < 4)
        return 2;
    int family = strcmp(argv[1], "4") ? AF_INET6 : AF_INET;
    int protocol = strcmp(argv[2], "mptcp") ? 0 : IPPROTO_MPTCP;
    int port = atoi(argv[3]), one = 1, only = !strcmp(argv[1], "6");
    int listener = socket(family, SOCK_STREAM, protocol);
    if (listener < 0 && protocol)
        /* As Go does where the kernel has none. */
        listener = socket(family, SOCK_STREAM, 0);
    if (listener < 0)
        return perror("socket"), 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    struct sockaddr_storage at = {.ss_family = family};
    socklen_t size;
    if (family == AF_INET6) {
        setsockopt(listener, IPPROTO_IPV6, IPV6_V6ONLY, &only, sizeof only);
        ((struct sockaddr_in6 *)&at)->sin6_port = htons(port);
        size = sizeof(struct sockaddr_in6);
    } else {
        ((struct sockaddr_in *)&at)->sin_port = htons(port);
        size = sizeof(struct sockaddr_in);
    }
    if (bind(listener, (void *)&at, size) || listen(listener, 64))
        return perror("listen"), 1;
    signal(SIGCHLD, SIG_IGN);
    for (;;) {
        struct sockaddr_storage told, asked;
        socklen_t length = sizeof told;
        memset(&told, 0, sizeof told);
        int client = accept(listener, (void *)&told, &length);
        if (client < 0)
            continue;
        if (fork() == 0) {
            close(listener);
            char accepted[80], peer[80], line[256], answer[512];
            length = sizeof asked;
            memset(&asked, 0, sizeof asked);
            getpeername(client, (void *)&asked, &length);
            show(accepted, sizeof accepted, &told);
            show(peer, sizeof peer, &asked);
            if (argc > 4 && write(client, argv[4], strlen(argv[4])) < 0)
                return 1;
            ssize_t n;
            while ((n = read(client, line, sizeof line)) > 0) {
                int m = snprintf(answer, sizeof answer, "%s|%s|%.*s", accepted, peer, (int)n, line);
                if (write(client, answer, m) < 0)
                    return 1;
            }
            return 0;
        }
        close(client);
    }
}
