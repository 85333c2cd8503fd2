package relay

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"testing"

	"mailcutover/mail"
)

// startSink is a platform as cheap as possible: it answers what comes, and drops bodies.
func startSink(tb testing.TB) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			go sink(nc)
		}
	}()
	tb.Cleanup(func() { l.Close(); <-done })
	return l.Addr().String()
}

func sink(nc net.Conn) {
	defer nc.Close()
	r, w := bufio.NewReaderSize(nc, 64<<10), bufio.NewWriter(nc)
	w.WriteString("220 sink\r\n")
	inBody := false
	for {
		if r.Buffered() == 0 {
			w.Flush()
		}
		line, err := r.ReadSlice('\n')
		if err != nil {
			return
		}
		switch {
		case inBody:
			if len(line) == 3 && line[0] == '.' {
				inBody = false
				w.WriteString("250 2.0.0 ok\r\n")
			}
		case bytes.HasPrefix(line, []byte("EHLO")):
			w.WriteString("250-sink\r\n250-8BITMIME\r\n250-SIZE\r\n250 PIPELINING\r\n")
		case bytes.HasPrefix(line, []byte("DATA")):
			inBody = true
			w.WriteString("354 go on\r\n")
		default:
			w.WriteString("250 2.1.0 ok\r\n")
		}
	}
}

func message(size int) []byte {
	line := append(bytes.Repeat([]byte("x"), 70), "\r\n"...)
	return append(bytes.Repeat(line, size/len(line)), "end\r\n"...)
}

// BenchmarkTransaction is one message of 10 KiB to one recipient over a kept connection,
// with a context that can be cancelled; the sink's share is part of it.
func BenchmarkTransaction(b *testing.B) {
	p := newPool(b, endpoint(startSink(b)), Options{})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	from, msg := path(b, "a@out.example"), message(10<<10)
	rcpts := []Recipient{{To: path(b, "b@health.example")}}
	b.SetBytes(int64(len(msg)))
	b.ReportAllocs()
	for b.Loop() {
		tx, err := p.Open(ctx, mail.Client{}, from, nil)
		if err != nil {
			b.Fatal(err)
		}
		if errs := tx.Rcpts(ctx, rcpts); errs[0] != nil {
			b.Fatal(errs)
		}
		if err := tx.Data(ctx); err != nil {
			b.Fatal(err)
		}
		if _, err := tx.Write(msg); err != nil {
			b.Fatal(err)
		}
		if errs := tx.Finish(ctx); errs[0] != nil {
			b.Fatal(errs)
		}
	}
}

// BenchmarkBody is the cost of checking, stuffing and copying a body, without a network.
func BenchmarkBody(b *testing.B) {
	client, server := net.Pipe()
	go io.Copy(io.Discard, server)
	defer server.Close()
	p := newPool(b, endpoint("127.0.0.1:1"), Options{})
	msg := message(1 << 20)
	tx := &Transaction{pool: p, conn: newConn(client, p.hosts[0], p.ep.Timeouts.Block, 0), stage: stageBody, body: body{lineStart: true}}
	b.SetBytes(int64(len(msg)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := tx.Write(msg); err != nil {
			b.Fatal(err)
		}
	}
}
