/* What one 125-register read costs a C program (libmodbus): the reference of the scan figures.
 *
 * usage: modbus_client PORT COUNT
 * Prints the CPU of this process per request, user and system, in microseconds.
 */
#include <modbus.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static double cpu_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return t.tv_sec * 1e6 + t.tv_nsec / 1e3;
}

int main(int argc, char **argv) {
    if (argc < 3) return 2;
    int count = atoi(argv[2]);
    modbus_t *ctx = modbus_new_tcp("127.0.0.1", atoi(argv[1]));
    if (!ctx || modbus_connect(ctx) < 0) {
        perror("modbus_client");
        return 1;
    }
    uint16_t registers[125];
    double before = cpu_us();
    for (int i = 0; i < count; i++)
        if (modbus_read_registers(ctx, 125 * (i % 8), 125, registers) != 125) return 1;
    printf("%.3f\n", (cpu_us() - before) / count);
    return 0;
}
