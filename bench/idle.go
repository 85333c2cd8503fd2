package main

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"mailcutover/bench/figure"
	"mailcutover/test/peers"
)

const (
	settleWithin = 60 * time.Second
	scrapeEvery  = 20 * time.Millisecond
)

// idle measures what connections add to the memory that say EHLO, over TLS or not, and
// then nothing.
func idle(t peers.TB, o options) figure.Part {
	peers.Need(t, "smtp-sink")
	part := figure.Part{
		Name: "Idle connections of one node",
		Notes: []string{
			fmt.Sprintf("%d connections after greeting and EHLO, with TLS after the handshake and another EHLO; difference of VmRSS, each run with a new node.", o.idle),
			"Ratio: to the bar.",
		},
	}
	sink := peers.StartSink(t)
	for _, c := range []struct {
		name   string
		secure bool
		bar    float64
	}{
		{"plain", false, 8},
		{"TLS", true, 20},
	} {
		var runs []float64
		for range o.nodes {
			if err := peers.Run(t.Context(), "idle "+c.name, o.progress, func(t peers.TB) {
				s := newSettings(t, sink.Addr)
				s.certificate(t)
				runs = append(runs, idleMemory(t, o, s, startNode(t, s), c.secure)/1024)
			}); err != nil {
				t.Fatalf("%v", err)
			}
		}
		part.Figures = append(part.Figures, figure.New("idle connection, "+c.name, "KiB", runs...).AtMost(c.bar))
	}
	return part
}

// idleMemory opens connections and returns how many bytes each adds.
func idleMemory(t peers.TB, o options, s settings, pid int, secure bool) float64 {
	n := o.idle
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatalf("limit of open files: %v", err)
	}
	if need := uint64(n + 200); limit.Cur < need {
		t.Fatalf("limit of open files is %d, %d idle connections need %d: ulimit -n", limit.Cur, n, need)
	}
	var conns []net.Conn
	defer func() {
		for _, c := range conns {
			c.Close()
		}
	}()
	open := func(n int) {
		for range n {
			c, err := greet(s.addr(), secure)
			if err != nil {
				t.Fatalf("idle connection %d: %v", len(conns)+1, err)
			}
			conns = append(conns, c)
		}
	}
	open(50) // what is there once, such as pools and session ticket keys
	before := settled(t, o.settle, s, pid)
	open(n)
	after := settled(t, o.settle, s, pid)
	for i, c := range conns { // that they are all still there
		if err := c.SetReadDeadline(time.Now()); err != nil {
			t.Fatalf("idle connection %d: %v", i+1, err)
		}
		if _, err := c.Read(make([]byte, 1)); !os.IsTimeout(err) {
			t.Fatalf("idle connection %d was not kept: %v", i+1, err)
		}
	}
	return (after - before) / float64(n)
}

// greet opens a connection and brings it behind EHLO. It returns the socket alone: the
// TLS connection is dropped, so that thousands of them fit this process.
func greet(addr string, secure bool) (net.Conn, error) {
	socket, err := net.DialTimeout("tcp", addr, 10*time.Second)
	if err != nil {
		return nil, err
	}
	if err := socket.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return nil, err
	}
	in := bufio.NewReaderSize(socket, 512)
	_, err = answer(socket, in, "", "220")
	if err == nil {
		_, err = answer(socket, in, "EHLO client.bench.example\r\n", "250")
	}
	if err == nil && secure {
		if _, err = answer(socket, in, "STARTTLS\r\n", "220"); err == nil {
			conn := tls.Client(socket, &tls.Config{InsecureSkipVerify: true})
			_, err = answer(conn, bufio.NewReaderSize(conn, 512), "EHLO client.bench.example\r\n", "250")
		}
	}
	if err != nil {
		socket.Close()
		return nil, err
	}
	return socket, nil
}

// answer sends a command and reads its answer to the end.
func answer(w io.Writer, r *bufio.Reader, command, code string) (last string, err error) {
	if command != "" {
		if _, err := io.WriteString(w, command); err != nil {
			return "", fmt.Errorf("send %q: %w", command, err)
		}
	}
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return line, fmt.Errorf("answer to %q: %w", command, err)
		}
		if !strings.HasPrefix(line, code) || len(line) < 4 {
			return line, fmt.Errorf("answer to %q is %q, want %s", command, line, code)
		}
		if line[3] != '-' {
			return line, nil
		}
	}
}

// settled returns the least resident memory once there is no lesser one for so long.
// Meanwhile /metrics is read again and again, as Prometheus would in hours: a process
// that does nothing at all would not collect its garbage for two minutes.
func settled(t peers.TB, long time.Duration, s settings, pid int) float64 {
	ctx, cancel := context.WithTimeout(t.Context(), settleWithin)
	defer cancel()
	least, since := 0.0, time.Now()
	for ctx.Err() == nil {
		if err := s.scrape(ctx); err != nil {
			t.Fatalf("%v", err)
		}
		now, err := resident(pid)
		if err != nil {
			t.Fatalf("memory of mailcutover: %v", err)
		}
		if least == 0 || now < least-64<<10 {
			least, since = now, time.Now()
		}
		if time.Since(since) > long {
			return least
		}
		select {
		case <-time.After(scrapeEvery):
		case <-ctx.Done():
		}
	}
	t.Fatalf("memory of mailcutover does not settle within %s", settleWithin)
	return 0
}

// certificate makes one for the node.
func (s *settings) certificate(t peers.TB) {
	fatal := func(err error) {
		if err != nil {
			t.Fatalf("make a certificate: %v", err)
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	fatal(err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"mx1.bench.example"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	fatal(err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	fatal(err)
	s.cert, s.key = filepath.Join(s.dir, "cert.pem"), filepath.Join(s.dir, "key.pem")
	fatal(os.WriteFile(s.cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	fatal(os.WriteFile(s.key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600))
}
