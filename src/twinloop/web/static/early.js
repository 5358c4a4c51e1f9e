// The live socket, opened before the page's other scripts are here: what the twin says first is on its way meanwhile.
// js/net/live.js takes it over, with what was heard; where that was quicker there is nothing left to do, and where it never
// comes the socket is closed, or it would be listened to for as long as the page is open.
if (globalThis.early === undefined) {
  const url = new URL("live", document.baseURI.replace(/#.*/, ""));
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  const socket = new WebSocket(url);
  const heard = [];
  socket.binaryType = "arraybuffer";
  socket.onmessage = ({ data }) => {
    if (heard.push(data) < 200) return;
    socket.close();
    heard.length = 0;
  };
  globalThis.early = { socket, heard };
}
