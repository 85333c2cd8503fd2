package smtp

import (
	"bytes"
	"crypto/tls"
	"io"
	"log"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	gosmtp "github.com/emersion/go-smtp"
)

// conformance is one row of the table that runs against this package's engine and
// against go-smtp's server: what a peer does, and what must come of it.
type conformance struct {
	name  string
	lmtp  bool
	tls   bool          // STARTTLS can be had
	limit int64         // octets of a message; 0: no limit
	read  time.Duration // the longest wait for a peer; 0: long
	steps []step
	want  outcome
}

// fact is what go-smtp's server does otherwise.
type fact struct {
	outcome outcome
	note    string // what is different
}

// outcome is what both sides saw.
type outcome struct {
	codes    string   // of all answers, in order; 250x12 stands for twelve of them
	messages []string // that arrived complete: envelope and content
}

// step is a thing that the peer does: send, wait for an answer, shake hands, or keep
// its end open until the server closes.
type step struct {
	send  string
	await string
	tls   bool
	stay  bool
}

func send(s string) step     { return step{send: s} }
func await(code string) step { return step{await: code} }

var (
	handshake = step{tls: true}
	stay      = step{stay: true}
)

const (
	hello    = "EHLO client.example\r\n"
	envelope = "MAIL FROM:<a@out.example>\r\nRCPT TO:<b@in.example>\r\n"
	quit     = "QUIT\r\n"
	// accepted is how a recorded message from envelope begins.
	accepted = "<a@out.example> <b@in.example> "
	// evil is what an attacker wants to be taken as commands.
	evil = "MAIL FROM:<evil@out.example>\r\nRCPT TO:<victim@in.example>\r\nDATA\r\nSubject: evil\r\n\r\nevil\r\n.\r\n"
)

// byData are the steps of a message whose content is sent as it stands here.
func byData(content string) []step {
	return []step{send(hello + envelope + "DATA\r\n"), await("354"), send(content + quit)}
}

// commands are the steps of a dialogue without a message.
func commands(lines ...string) []step {
	return []step{send(hello + strings.Join(lines, "\r\n") + "\r\n" + quit)}
}

// one is the outcome of one message with this content.
func one(content string) outcome {
	return outcome{"220 250 250 250 354 250 221", []string{accepted + content}}
}

// TestConformance runs the table against this package's engine.
func TestConformance(t *testing.T) {
	t.Parallel()
	for _, c := range conformanceTable() {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := &recorder{}
			o := testOptions()
			o.Limits.MessageBytes = c.limit
			o.Limits.Recipients = 100
			if c.lmtp {
				o.Protocol = ProtocolLMTP
			}
			if c.tls {
				o.TLSConfig = serverTLS(t)
			}
			if c.read > 0 {
				o.Limits.Read, o.Limits.Idle = c.read, c.read
			}
			_, addr := startServer(t, o, r)
			codes := play(t, addr, c.steps)
			eventually(t, "the session is closed", func() bool {
				r.mu.Lock()
				defer r.mu.Unlock()
				return r.opened == r.closed
			})
			compare(t, c.want, outcome{codes, r.messages})
			for _, m := range r.messages {
				if bare.MatchString(m) {
					t.Errorf("message has a bare CR or LF: %q", m)
				}
			}
		})
	}
}

// TestConformanceByteByByte runs the table with the peer's bytes one at a time, as far
// as it does not depend on time, TLS, or on bytes that come together.
func TestConformanceByteByByte(t *testing.T) {
	t.Parallel()
	for _, c := range conformanceTable() {
		var in strings.Builder
		for _, s := range c.steps {
			in.WriteString(s.send)
		}
		if c.tls || c.read > 0 || strings.HasPrefix(c.name, "S18") || in.Len() > 100_000 {
			continue
		}
		r := &recorder{}
		o := testOptions()
		o.Limits.MessageBytes, o.Limits.Recipients = c.limit, 100
		var backend Backend = oneAnswer{r}
		if c.lmtp {
			o.Protocol, backend = ProtocolLMTP, r
		}
		var codes []string
		for line := range strings.Lines(converse(t, o, backend, in.String(), 1)) {
			if line[3] == ' ' {
				codes = append(codes, line[:3])
			}
		}
		t.Run(c.name, func(t *testing.T) { compare(t, c.want, outcome{strings.Join(codes, " "), r.messages}) })
	}
}

// usesBDAT reports whether the peer sends chunks. go-smtp v0.25.1 has data races of its
// own there (conn.go, handleBdat), which the detector would lay at our door; so these
// rows run against it in builds without the detector only.
func (c conformance) usesBDAT() bool {
	return slices.ContainsFunc(c.steps, func(s step) bool { return strings.Contains(s.send, "BDAT ") })
}

// TestGoSMTPDiffers runs the same table against go-smtp's server.
func TestGoSMTPDiffers(t *testing.T) {
	t.Parallel()
	known := make(map[string]bool)
	for _, c := range conformanceTable() {
		if known[c.name] {
			t.Errorf("two rows are called %q", c.name)
		}
		known[c.name] = true
	}
	for name := range goSMTPFacts {
		if !known[name] {
			t.Errorf("a fact is about %q, which is no row", name)
		}
	}
	for _, c := range conformanceTable() {
		if raceDetector && c.usesBDAT() {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := &goRecorder{}
			addr := r.listen(t, c)
			codes := play(t, addr, c.steps)
			want := c.want
			if f, differs := goSMTPFacts[c.name]; differs {
				want = f.outcome
			}
			r.mu.Lock()
			defer r.mu.Unlock()
			compare(t, want, outcome{codes, r.messages})
		})
	}
}

var bare = regexp.MustCompile(`(^|[^\r])\n|\r($|[^\n])`)

// play does the steps and returns the codes of all answers.
func play(t *testing.T, addr string, steps []step) string {
	t.Helper()
	p := dial(t, addr)
	var codes []string
	next := func() bool {
		got := p.reply()
		if got == "" {
			return false
		}
		codes = append(codes, strings.TrimSpace(got)[:3])
		return true
	}
	open := false
	for _, s := range steps {
		switch {
		case s.tls:
			if err := p.startTLS(anyCertificate); err != nil {
				return strings.Join(append(codes, "no-tls"), " ")
			}
		case s.await != "":
			for next() {
				if codes[len(codes)-1] == s.await {
					break
				}
			}
		case s.stay:
			open = true
		default:
			p.send(s.send)
		}
	}
	if !open {
		p.closeWrite()
	}
	for next() {
	}
	return strings.Join(codes, " ")
}

// repeated is a code that comes several times.
var repeated = regexp.MustCompile(`(\d{3})x(\d+)`)

func compare(t *testing.T, want, got outcome) {
	t.Helper()
	want.codes = repeated.ReplaceAllStringFunc(want.codes, func(s string) string {
		n, _ := strconv.Atoi(s[4:])
		return strings.TrimSpace(strings.Repeat(s[:3]+" ", n))
	})
	if got.codes != want.codes {
		t.Errorf("answers\n got %s\nwant %s", got.codes, want.codes)
	}
	if len(got.messages) != len(want.messages) {
		t.Errorf("%d messages arrived, want %d: %.2000q", len(got.messages), len(want.messages), got.messages)
		return
	}
	for i := range want.messages {
		if got.messages[i] != want.messages[i] {
			t.Errorf("message %d\n got %.2000q\nwant %.2000q", i, got.messages[i], want.messages[i])
		}
	}
}

// goRecorder is the recorder behind go-smtp's server.
type goRecorder struct {
	mu       sync.Mutex
	messages []string
}

func (r *goRecorder) listen(t *testing.T, c conformance) string {
	t.Helper()
	srv := gosmtp.NewServer(gosmtp.BackendFunc(func(*gosmtp.Conn) (gosmtp.Session, error) {
		return &goSession{r: r}, nil
	}))
	srv.Domain, srv.LMTP = "mx.example", c.lmtp
	srv.EnableSMTPUTF8, srv.EnableDSN = true, true
	srv.MaxMessageBytes, srv.MaxRecipients = c.limit, 100
	srv.ReadTimeout, srv.WriteTimeout = patience, patience
	srv.ErrorLog = log.New(io.Discard, "", 0)
	if c.read > 0 {
		srv.ReadTimeout = c.read
	} else if slices.Contains(c.steps, stay) {
		srv.ReadTimeout = 2 * time.Second // it would not end by itself
	}
	if c.tls {
		srv.TLSConfig = &tls.Config{Certificates: []tls.Certificate{certificate(t, "mx.example")}}
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ln) }()
	t.Cleanup(func() {
		_ = srv.Close()
		<-done
	})
	return ln.Addr().String()
}

type goSession struct {
	r        *goRecorder
	envelope []string
}

func (s *goSession) Mail(from string, _ *gosmtp.MailOptions) error {
	s.envelope = append(s.envelope, "<"+from+">")
	return nil
}

func (s *goSession) Rcpt(to string, _ *gosmtp.RcptOptions) error {
	if strings.HasPrefix(to, "no@") {
		return &gosmtp.SMTPError{Code: 550, EnhancedCode: gosmtp.EnhancedCode{5, 1, 1}, Message: "No such recipient here"}
	}
	s.envelope = append(s.envelope, "<"+to+">")
	return nil
}

func (s *goSession) Data(r io.Reader) error {
	var content bytes.Buffer
	if _, err := content.ReadFrom(r); err != nil {
		return err
	}
	s.r.mu.Lock()
	defer s.r.mu.Unlock()
	s.r.messages = append(s.r.messages, strings.Join(s.envelope, " ")+" "+content.String())
	return nil
}

func (s *goSession) Reset()        { s.envelope = nil }
func (s *goSession) Logout() error { return nil }
