package platformtest

import (
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// FuzzDialogue sends anything and wants the connection to end by itself when the client
// has said what it wanted, and the platform to be there for the next one.
func FuzzDialogue(f *testing.F) {
	f.Add([]byte("EHLO x\r\nMAIL FROM:<a@x>\r\nRCPT TO:<b@x>\r\nDATA\r\n..a\r\n.\r\nQUIT\r\n"), false)
	f.Add([]byte("LHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<\"b> \\\"\"@x> NOTIFY=NEVER\r\nBDAT 3\r\nabcBDAT 0 LAST\r\n"), true)
	f.Add([]byte("\r\n\n \r\nEHLO\r\nmail\r\nMAIL FROM:\r\nRCPT TO:<\\\r\nBDAT\r\nBDAT 99999999999999999999\r\nAUTH\r\nXFORWARD\r\n"), false)
	f.Add([]byte("EHLO x\r\nAUTH PLAIN\r\n*\r\nAUTH LOGIN eA==\r\n=\r\nXCLIENT =\r\nSTARTTLS\r\n"), false)
	f.Fuzz(func(t *testing.T, input []byte, lmtp bool) {
		p, err := Start(Options{
			LMTP:       lmtp,
			Extensions: append([]string{"AUTH PLAIN LOGIN", "XFORWARD NAME", "XCLIENT NAME", ""}, DefaultExtensions...),
		})
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		conn, err := net.Dial("tcp", p.Addr())
		if err != nil {
			t.Fatal(err)
		}
		var writer sync.WaitGroup
		defer writer.Wait()
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(20 * time.Second))
		writer.Go(func() {
			conn.Write(input)
			conn.(*net.TCPConn).CloseWrite()
		})
		if _, err := io.Copy(io.Discard, conn); err != nil {
			if ne, ok := err.(net.Error); ok && ne.Timeout() {
				t.Fatalf("no end: %v", err)
			}
		}
	})
}
