package smtp

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	gosmtp "github.com/emersion/go-smtp"
)

// BenchmarkMessages has 20 kept connections that send messages of 10 KiB, without and
// with pipelining, and compares with go-smtp's server doing the same.
func BenchmarkMessages(b *testing.B) {
	for _, engine := range []string{"own", "go-smtp"} {
		for _, pipelined := range []bool{false, true} {
			name := engine + "/one by one"
			if pipelined {
				name = engine + "/pipelined"
			}
			b.Run(name, func(b *testing.B) {
				var addr string
				if engine == "own" {
					_, addr = startServer(b, testOptions(), discard{})
				} else {
					addr = listenGoSMTP(b)
				}
				benchmarkMessages(b, addr, pipelined)
			})
		}
	}
}

func benchmarkMessages(b *testing.B, addr string, pipelined bool) {
	const connections = 20
	message := strings.Repeat(strings.Repeat("x", 76)+"\r\n", 131) + ".\r\n"
	b.SetBytes(int64(len(message)))
	b.ReportAllocs()
	work := make(chan struct{}, connections)
	var wg sync.WaitGroup
	for range connections {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			b.Fatal(err)
		}
		wg.Go(func() {
			defer conn.Close()
			r := bufio.NewReader(conn)
			say := func(s string, replies int) {
				if _, err := io.WriteString(conn, s); err != nil {
					b.Error(err)
				}
				for range replies {
					for {
						line, err := r.ReadSlice('\n')
						if err != nil || line[0] > '3' {
							b.Errorf("answer %q, error %v", line, err)
							return
						}
						if line[3] == ' ' {
							break
						}
					}
				}
			}
			say("EHLO x\r\n", 2)
			for range work {
				if pipelined {
					say(envelope+"DATA\r\n", 3)
				} else {
					say("MAIL FROM:<a@out.example>\r\n", 1)
					say("RCPT TO:<b@in.example>\r\n", 1)
					say("DATA\r\n", 1)
				}
				say(message, 1)
			}
		})
	}
	b.ResetTimer()
	for range b.N {
		work <- struct{}{}
	}
	close(work)
	wg.Wait()
}

// listenGoSMTP starts go-smtp's server with a session that keeps nothing.
func listenGoSMTP(b *testing.B) string {
	srv := gosmtp.NewServer(gosmtp.BackendFunc(func(*gosmtp.Conn) (gosmtp.Session, error) { return goDiscard{}, nil }))
	srv.Domain = "mx.example"
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ln) }()
	b.Cleanup(func() {
		_ = srv.Close()
		<-done
	})
	return ln.Addr().String()
}

type goDiscard struct{}

func (goDiscard) Mail(string, *gosmtp.MailOptions) error { return nil }
func (goDiscard) Rcpt(string, *gosmtp.RcptOptions) error { return nil }
func (goDiscard) Reset()                                 {}
func (goDiscard) Logout() error                          { return nil }
func (goDiscard) Data(r io.Reader) error {
	_, err := io.Copy(io.Discard, r)
	return err
}

// BenchmarkData is the engine's speed for one large message, from the bytes as they are
// read to those that a session gets, without a network.
func BenchmarkData(b *testing.B) {
	content := bytes.Repeat([]byte(strings.Repeat("QUJD", 19)+"\r\n"), 100_000)
	in := append([]byte(hello+envelope+"DATA\r\n"), append(content, ".\r\nQUIT\r\n"...)...)
	srv, err := NewServer(testOptions(), discard{})
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(content)))
	for b.Loop() {
		// The envelope comes in a read of its own, as from a peer that waits for 354.
		s := &script{in: in, n: bufferBytes, first: len(hello + envelope + "DATA\r\n")}
		srv.front.ServeConn(context.Background(), s)
		if _, answer, _ := strings.Cut(s.out.String(), "\r\n354 "); !strings.Contains(answer, "\r\n250 ") {
			b.Fatalf("message was not accepted: %s", s.out.String())
		}
	}
}
