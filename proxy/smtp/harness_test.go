package smtp

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	gosmtp "github.com/emersion/go-smtp"

	"mailcutover/mail"
)

// patience is how long a test waits for what must come.
const patience = time.Minute

// recorder is a backend that keeps what it is given and takes every recipient but
// those whose local part is no, later or panic.
type recorder struct {
	mu       sync.Mutex
	clients  []mail.Client         // of each Mail
	options  []*gosmtp.MailOptions // of each Mail
	batches  [][]Recipient         // of each Rcpts
	messages []string              // complete ones, as envelope and body
	broken   []error               // what ended those that were not complete
	resets   int
	opened   int
	closed   int

	data func(ctx context.Context, b Body, rcpts int) []error // nil: read all and accept
}

func (r *recorder) NewSession(context.Context, mail.Client) (Session, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.opened++
	return &recorderSession{recorder: r}, nil
}

type recorderSession struct {
	*recorder
	envelope []string
}

func (s *recorderSession) Mail(_ context.Context, client mail.Client, from mail.Path, opts *gosmtp.MailOptions) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clients = append(s.clients, client)
	s.options = append(s.options, opts)
	s.envelope = []string{"<" + from.String() + ">"}
	switch from.Local() {
	case "panic":
		panic("a session that panics")
	case "no":
		s.resets++ // a transaction that never began
		return mail.NewReply(450, 4, 7, 1, "Not from you")
	}
	return nil
}

func (s *recorderSession) Rcpts(_ context.Context, rcpts []Recipient) []error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.batches = append(s.batches, append([]Recipient(nil), rcpts...))
	errs := make([]error, len(rcpts))
	for i, r := range rcpts {
		switch r.To.Local() {
		case "no":
			errs[i] = mail.NewReply(550, 5, 1, 1, "No such recipient here")
		case "unknown":
			errs[i] = mail.NewReply(451, 4, 1, 1, "Not known")
		case "other":
			errs[i] = mail.NewReply(452, 4, 5, 3, "Come again")
		case "later":
			errs[i] = fmt.Errorf("wrapped: %w", mail.NewReply(451, 4, 3, 2, "Not now"))
		case "unforeseen":
			errs[i] = errors.New("secret: table of agency x is broken")
		default:
			s.envelope = append(s.envelope, "<"+r.To.String()+">")
		}
	}
	return errs
}

func (s *recorderSession) Data(ctx context.Context, b Body) []error {
	rcpts := len(s.envelope) - 1
	if s.data != nil {
		return s.data(ctx, b, rcpts)
	}
	content, err := io.ReadAll(b)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.broken = append(s.broken, err)
		return answers(rcpts, err)
	}
	s.messages = append(s.messages, strings.Join(s.envelope, " ")+" "+string(content))
	return answers(rcpts, nil)
}

// answers returns err for each recipient; the SMTP engine looks at the first only if
// there is one answer, so tests of SMTP use the recorder's one helper as well.
func answers(n int, err error) []error {
	errs := make([]error, n)
	for i := range errs {
		errs[i] = err
	}
	return errs
}

func (s *recorderSession) Reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.resets++
	s.envelope = nil
}

func (s *recorderSession) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed++
}

// oneAnswer makes a recorder fit SMTP, which has one answer for a message.
type oneAnswer struct{ *recorder }

func (o oneAnswer) NewSession(ctx context.Context, c mail.Client) (Session, error) {
	s, err := o.recorder.NewSession(ctx, c)
	return oneAnswerSession{s}, err
}

type oneAnswerSession struct{ Session }

func (s oneAnswerSession) Data(ctx context.Context, b Body) []error {
	errs := s.Session.Data(ctx, b)
	return errs[:min(1, len(errs))]
}

// testOptions are the defaults, named.
func testOptions() Options {
	o := DefaultOptions()
	o.ID, o.Hostname = "test", "mx.example"
	return o
}

// startServer starts a server with these settings; it ends with the test.
func startServer(t testing.TB, opts Options, backend Backend) (*Server, string) {
	t.Helper()
	if r, ok := backend.(*recorder); ok && opts.Protocol == ProtocolSMTP {
		backend = oneAnswer{r}
	}
	srv, err := NewServer(opts, backend)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		select {
		case <-done:
		case <-time.After(patience):
			t.Error("Serve did not return after its context ended")
		}
	})
	return srv, ln.Addr().String()
}

// peer is a client that sends exactly what it is told to.
type peer struct {
	t     testing.TB
	conn  net.Conn
	local net.Addr
	r     *bufio.Reader
}

func dial(t testing.TB, addr string) *peer {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return newPeer(t, conn)
}

func newPeer(t testing.TB, conn net.Conn) *peer {
	return &peer{t: t, conn: conn, local: conn.LocalAddr(), r: bufio.NewReader(conn)}
}

// send writes s; that the server has closed already shows when its answers are read.
func (p *peer) send(s string) { _, _ = io.WriteString(p.conn, s) }

// reply reads one answer with all its lines; "" at the connection's end.
func (p *peer) reply() string {
	p.t.Helper()
	var all strings.Builder
	for {
		line, err := p.r.ReadString('\n')
		if isTimeout(err) {
			p.t.Fatalf("no answer within %v, after %q", patience, all.String())
		}
		all.WriteString(line)
		if err != nil || len(line) < 4 || line[3] != '-' {
			return all.String()
		}
	}
}

// expect reads one answer and wants it to begin with prefix.
func (p *peer) expect(prefix string) string {
	p.t.Helper()
	got := p.reply()
	if !strings.HasPrefix(got, prefix) {
		p.t.Fatalf("answer is %q, want one that begins with %q", got, prefix)
	}
	return got
}

// expectEnd wants the connection to be closed without another word.
func (p *peer) expectEnd() {
	p.t.Helper()
	if got := p.reply(); got != "" {
		p.t.Fatalf("answer is %q, want the connection closed", got)
	}
}

// command sends a line and wants an answer that begins with prefix.
func (p *peer) command(line, prefix string) string {
	p.t.Helper()
	p.send(line + "\r\n")
	return p.expect(prefix)
}

// hello greets and opens a transaction up to the recipient.
func (p *peer) hello() *peer {
	p.t.Helper()
	p.expect("220 ")
	p.command("EHLO client.example", "250")
	return p
}

func (p *peer) envelope() *peer {
	p.t.Helper()
	p.command("MAIL FROM:<a@out.example>", "250 ")
	p.command("RCPT TO:<b@in.example>", "250 ")
	return p
}

// closeWrite tells the server that nothing more comes.
func (p *peer) closeWrite() {
	if c, ok := p.conn.(interface{ CloseWrite() error }); ok {
		_ = c.CloseWrite()
	}
}

func (p *peer) startTLS(config *tls.Config) error {
	conn := tls.Client(p.conn, config)
	if err := conn.Handshake(); err != nil {
		return err
	}
	p.conn, p.r = conn, bufio.NewReader(conn)
	return nil
}

// certificate returns a self-signed one for name.
func certificate(t testing.TB, name string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func serverTLS(t testing.TB) func() *tls.Config {
	config := &tls.Config{Certificates: []tls.Certificate{certificate(t, "mx.example")}}
	return func() *tls.Config { return config }
}

var anyCertificate = &tls.Config{InsecureSkipVerify: true}

// eventually waits until cond holds.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", patience, what)
		}
		time.Sleep(time.Millisecond)
	}
}

// logBuffer is a log that tests read.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *logBuffer) logger() *slog.Logger { return slog.New(slog.NewJSONHandler(l, nil)) }
