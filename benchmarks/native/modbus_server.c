/* Cheap Modbus TCP devices for the benchmarks (libmodbus): 1,000 holding registers that move.
 *
 * usage: modbus_server DEVICES [STEPS]     (at most 400; 1000 steps)
 * Each device has a port of the system's choice; all have the same registers.
 * Prints the ports, one a line, then serves every connection until it is killed.
 * Each time a read begins at register 0, the first STEPS registers take one of a random walk.
 */
#include <arpa/inet.h>
#include <modbus.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/select.h>
#include <unistd.h>

#define MOST 400      /* two descriptors each, of the 1,024 that select() takes */
#define REGISTERS 1000

static void walk(uint16_t *registers, int steps) {
    static uint32_t state = 1;
    for (int i = 0; i < steps; i++) {
        state = state * 1664525u + 1013904223u;
        registers[i] += (int)(state >> 30) % 3 - 1;
    }
}

/* A socket that listens on a port of the system's choice; prints the port. */
static int listener(void) {
    modbus_t *ctx = modbus_new_tcp("127.0.0.1", 0);
    int fd = ctx ? modbus_tcp_listen(ctx, 4) : -1;
    struct sockaddr_in at;
    socklen_t size = sizeof at;
    if (fd < 0 || getsockname(fd, (struct sockaddr *)&at, &size) < 0) {
        perror("modbus_server");
        exit(1);
    }
    printf("%d\n", ntohs(at.sin_port));
    return fd;
}

int main(int argc, char **argv) {
    int devices = argc > 1 ? atoi(argv[1]) : 1;
    int steps = argc > 2 ? atoi(argv[2]) : REGISTERS;
    modbus_t *ctx = modbus_new_tcp("127.0.0.1", 0);
    modbus_mapping_t *map = modbus_mapping_new(0, 0, REGISTERS, 0);
    if (!ctx || !map || devices < 1 || devices > MOST || steps > REGISTERS) return 2;
    for (int i = 0; i < REGISTERS; i++) map->tab_registers[i] = (uint16_t)(1000 + 7 * i);

    fd_set open, listening;
    int last = 0;
    FD_ZERO(&open);
    FD_ZERO(&listening);
    for (int i = 0; i < devices; i++) {
        int fd = listener();
        FD_SET(fd, &open);
        FD_SET(fd, &listening);
        if (fd > last) last = fd;
    }
    fflush(stdout);
    for (;;) {
        fd_set ready = open;
        if (select(last + 1, &ready, NULL, NULL, NULL) < 0) return 1;
        for (int fd = 0; fd <= last; fd++) {
            if (!FD_ISSET(fd, &ready)) continue;
            if (FD_ISSET(fd, &listening)) {
                int client = modbus_tcp_accept(ctx, &(int){fd});
                if (client < 0 || client >= FD_SETSIZE) continue;
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
                if (query[8] == 0 && query[9] == 0) walk(map->tab_registers, steps);
                modbus_reply(ctx, query, length, map);
            }
        }
    }
}
