/* A cheap Modbus TCP device for the benchmarks (libmodbus): 1,000 holding registers that move.
 *
 * usage: modbus_server PORT     (0: a port of the system's choice)
 * Prints the port, then serves every connection until it is killed.
 * Each time a read begins at register 0, every register takes one step of a random walk.
 */
#include <arpa/inet.h>
#include <modbus.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/select.h>
#include <unistd.h>

#define REGISTERS 1000

static void walk(uint16_t *registers) {
    static uint32_t state = 1;
    for (int i = 0; i < REGISTERS; i++) {
        state = state * 1664525u + 1013904223u;
        registers[i] += (int)(state >> 30) % 3 - 1;
    }
}

int main(int argc, char **argv) {
    modbus_t *ctx = modbus_new_tcp("127.0.0.1", argc > 1 ? atoi(argv[1]) : 0);
    modbus_mapping_t *map = modbus_mapping_new(0, 0, REGISTERS, 0);
    int listener = ctx && map ? modbus_tcp_listen(ctx, 4) : -1;
    struct sockaddr_in at;
    socklen_t size = sizeof at;
    if (listener < 0 || getsockname(listener, (struct sockaddr *)&at, &size) < 0) {
        perror("modbus_server");
        return 1;
    }
    printf("%d\n", ntohs(at.sin_port));
    fflush(stdout);
    for (int i = 0; i < REGISTERS; i++) map->tab_registers[i] = (uint16_t)(1000 + 7 * i);

    fd_set open;
    FD_ZERO(&open);
    FD_SET(listener, &open);
    for (int last = listener;;) {
        fd_set ready = open;
        if (select(last + 1, &ready, NULL, NULL, NULL) < 0) return 1;
        for (int fd = 0; fd <= last; fd++) {
            if (!FD_ISSET(fd, &ready)) continue;
            if (fd == listener) {
                int client = modbus_tcp_accept(ctx, &listener);
                if (client < 0) continue;
                FD_SET(client, &open);
                if (client > last) last = client;
                continue;
            }
            uint8_t query[MODBUS_TCP_MAX_ADU_LENGTH];
            modbus_set_socket(ctx, fd);
            int length = modbus_receive(ctx, query);
            if (length < 0) {
                close(fd);
                FD_CLR(fd, &open);
            } else if (length > 0) {
                if (query[8] == 0 && query[9] == 0) walk(map->tab_registers);
                modbus_reply(ctx, query, length, map);
            }
        }
    }
}
