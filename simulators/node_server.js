/* A Modbus device by node's modbus-serial or jsmodbus: register i holds i, bit i its lowest bit.
 *
 * usage: node node_server.js modbus-serial|jsmodbus SIZE PORT      (found by NODE_PATH)
 * Prints a line when it serves, until it is killed.
 */
const [, , kind, ...words] = process.argv;
const [size, port] = words.map(Number);

function jsmodbus() {
  const registers = Buffer.alloc(2 * size);
  const bits = Buffer.alloc(Math.ceil(size / 8), 0xaa);
  for (let i = 0; i < size; i++) registers.writeUInt16BE(i, 2 * i);
  const listener = require("net").createServer();
  const tables = { holding: registers, input: registers, coils: bits, discrete: bits };
  new (require("jsmodbus").server.TCP)(listener, tables);
  listener.listen(port, "127.0.0.1", () => console.log("ready"));
}

function modbusSerial() {
  const inside = (i) => {
    if (i >= size) throw { modbusErrorCode: 2 };
    return i;
  };
  const vector = {
    getHoldingRegister: (i) => inside(i),
    getInputRegister: (i) => inside(i),
    getCoil: (i) => (inside(i) & 1) === 1,
    getDiscreteInput: (i) => (inside(i) & 1) === 1,
  };
  const ServerTCP = require("modbus-serial/servers/servertcp");
  const server = new ServerTCP(vector, { host: "127.0.0.1", port, unitID: 1 });
  server._server.on("listening", () => console.log("ready"));
}

if (kind === "jsmodbus") jsmodbus();
else modbusSerial();
