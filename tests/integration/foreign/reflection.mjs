// Makes a client of any gRPC service from nothing but what the server says of itself (grpc.reflection.v1alpha).
import grpc from "@grpc/grpc-js";
import protoLoader from "@grpc/proto-loader";

const OPTIONS = { keepCase: true, longs: String, enums: String, defaults: true, oneofs: true };

// The one thing that has to be known beforehand: how to ask.
const REFLECTION = protoLoader.fromJSON({
  nested: { grpc: { nested: { reflection: { nested: { v1alpha: { nested: {
    ServerReflection: { methods: { ServerReflectionInfo: {
      requestType: "ServerReflectionRequest", requestStream: true,
      responseType: "ServerReflectionResponse", responseStream: true,
    } } },
    ServerReflectionRequest: {
      oneofs: { message_request: { oneof: ["file_by_filename", "file_containing_symbol", "list_services"] } },
      fields: {
        file_by_filename: { type: "string", id: 3 },
        file_containing_symbol: { type: "string", id: 4 },
        list_services: { type: "string", id: 7 },
      },
    },
    ServerReflectionResponse: { fields: {
      file_descriptor_response: { type: "FileDescriptorResponse", id: 4 },
      list_services_response: { type: "ListServiceResponse", id: 6 },
      error_response: { type: "ErrorResponse", id: 7 },
    } },
    FileDescriptorResponse: { fields: { file_descriptor_proto: { rule: "repeated", type: "bytes", id: 1 } } },
    ListServiceResponse: { fields: { service: { rule: "repeated", type: "ServiceResponse", id: 1 } } },
    ServiceResponse: { fields: { name: { type: "string", id: 1 } } },
    ErrorResponse: { fields: {
      error_code: { type: "int32", id: 1 }, error_message: { type: "string", id: 2 },
    } },
  } } } } } } },
}, { ...OPTIONS, defaults: false });

// The services of a server by their full names, ready to be called.
export async function connect(address) {
  const credentials = grpc.credentials.createInsecure();
  const reflection = grpc.loadPackageDefinition(REFLECTION).grpc.reflection.v1alpha.ServerReflection;
  const asking = new reflection(address, credentials);
  const ask = (request) => new Promise((resolve, reject) => {
    const call = asking.ServerReflectionInfo({ deadline: Date.now() + 30_000 });
    call.on("data", (answer) => answer.error_response ? reject(answer.error_response) : resolve(answer));
    call.on("error", reject);
    call.write(request);
    call.end();
  });

  const { list_services_response: listed } = await ask({ list_services: "*" });
  const names = listed.service.map(({ name }) => name).filter((name) => name.startsWith("chainrule."));
  const files = new Set(); // a server may send a file along with each that imports it
  for (const name of names) {
    const { file_descriptor_response: answer } = await ask({ file_containing_symbol: name });
    for (const file of answer.file_descriptor_proto) files.add(file.toString("base64"));
  }
  asking.close();

  const described = Buffer.concat([...files].map((file) => delimited(Buffer.from(file, "base64"))));
  const loaded = grpc.loadPackageDefinition(protoLoader.loadFileDescriptorSetFromBuffer(described, OPTIONS));
  const services = {};
  for (const name of names) {
    const service = name.split(".").reduce((inner, part) => inner[part], loaded);
    services[name] = new service(address, credentials);
  }
  return services;
}

// A file as one of a google.protobuf.FileDescriptorSet: field 1, with its length.
function delimited(file) {
  const head = [0x0a];
  let left = file.length;
  for (; left > 0x7f; left >>>= 7) head.push((left & 0x7f) | 0x80);
  return Buffer.concat([Buffer.from([...head, left]), file]);
}
