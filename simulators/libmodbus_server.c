/* A Modbus TCP device on libmodbus: one unit, all tables, one client after the other or together.
 *
 *   libmodbus_server REGISTERS                    TCP: prints its port
 *   libmodbus_server REGISTERS numbered [PORT]    register i holds i; with the path of a serial
 *                                                 port it is unit 1 of an RTU line, 115200 8N1
 *
 * Then it prints one line for each request: "<function code> <first address>". It ends when its standard input is closed. */
#include <arpa/inet.h>
#include <errno.h>
#include <modbus.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <unistd.h>

static void number(modbus_mapping_t *map, int size) {
    for (int i = 0; i < size; i++) {
        map->tab_registers[i] = map->tab_input_registers[i] = i;
        map->tab_bits[i] = map->tab_input_bits[i] = i & 1;
    }
}

static int serve_line(const char *port, modbus_mapping_t *map) {
    modbus_t *ctx = modbus_new_rtu(port, 115200, 'N', 8, 1);
    if (!ctx || modbus_set_slave(ctx, 1) < 0 || modbus_connect(ctx) < 0) {
        perror("libmodbus_server");
        return 1;
    }
    printf("0\n");
    fflush(stdout);
    for (;;) {
        uint8_t request[MODBUS_RTU_MAX_ADU_LENGTH];
        int n = modbus_receive(ctx, request);
        if (n > 0) {
            printf("%d %d\n", request[1], request[2] << 8 | request[3]);
            fflush(stdout);
            modbus_reply(ctx, request, n, map);
        } else if (n < 0 && errno == EIO) {
            return 0;
        }
    }
}

int main(int argc, char **argv) {
    int size = argc > 1 ? atoi(argv[1]) : 200;
    modbus_t *ctx = modbus_new_tcp("127.0.0.1", 0);
    modbus_mapping_t *map = modbus_mapping_new(size, size, size, size);
    if (map && argc > 2) number(map, size);
    if (map && argc > 3) return serve_line(argv[3], map);
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
