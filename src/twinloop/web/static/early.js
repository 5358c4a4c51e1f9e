// The live socket, opened before the page's other scripts are here: what the twin says first is on its way meanwhile.
// js/net/live.js takes it over, with what was heard; where that was quicker there is nothing left to do.
if (globalThis.early === undefined) {
  const url = new URL("live", document.baseURI.replace(/#.*/, ""));
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  const socket = new WebSocket(url);
  const heard = [];
  socket.binaryType = "arraybuffer";
  socket.onmessage = ({ data }) => heard.push(data);
  globalThis.early = { socket, heard };
}
