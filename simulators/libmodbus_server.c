/* A Modbus TCP device on libmodbus: one unit, all tables, one client after the other or together.
 *
 *   libmodbus_server REGISTERS     prints its port, then one line for each request:
 *                                  "<function code> <first address>"
 *
 * It ends when its standard input is closed. */
#include <arpa/inet.h>
#include <errno.h>
#include <modbus.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char **argv) {
    int size = argc > 1 ? atoi(argv[1]) : 200;
    modbus_t *ctx = modbus_new_tcp("127.0.0.1", 0);
    modbus_mapping_t *map = modbus_mapping_new(size, size, size, size);
    int listener = ctx && map ? modbus_tcp_listen(ctx, 4) : -1;
    struct sockaddr_in at;
    socklen_t length = sizeof at;
    if (listener < 0 || getsockname(listener, (struct sockaddr *)&at, &length) < 0) {
        perror("libmodbus_server");
        return 1;
    }
    printf("%d\n", ntohs(at.sin_port));
    fflush(stdout);
    fd_set open;
    FD_ZERO(&open);
    FD_SET(listener, &open);
    FD_SET(STDIN_FILENO, &open);
    int top = listener;
    for (;;) {
        fd_set ready = open;
        if (select(top + 1, &ready, NULL, NULL, NULL) < 0) return 1;
        if (FD_ISSET(STDIN_FILENO, &ready)) {
            char c;
            if (read(STDIN_FILENO, &c, 1) <= 0) return 0;
        }
        for (int fd = 0; fd <= top; fd++) {
            if (!FD_ISSET(fd, &ready) || fd == STDIN_FILENO) continue;
            if (fd == listener) {
                int peer = accept(listener, NULL, NULL);
                if (peer >= 0) FD_SET(peer, &open);
                if (peer > top) top = peer;
                continue;
            }
            uint8_t request[MODBUS_TCP_MAX_ADU_LENGTH];
            modbus_set_socket(ctx, fd);
            int n = modbus_receive(ctx, request);
            if (n > 0) {
                printf("%d %d\n", request[7], request[8] << 8 | request[9]);
                fflush(stdout);
                modbus_reply(ctx, request, n, map);
            } else if (n < 0) {
                close(fd);
                FD_CLR(fd, &open);
            }
        }
    }
}
