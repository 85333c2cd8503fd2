package relay

import (
	"bytes"
	"context"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"mailcutover/mail"
	"mailcutover/proxy/dial"

	gosmtp "github.com/emersion/go-smtp"
	"pgregory.net/rapid"
)

// keeper is a go-smtp backend that keeps what it receives.
type keeper struct {
	mu   sync.Mutex
	sent []kept
}

type kept struct {
	from string
	opts gosmtp.MailOptions
	to   []string
	rcpt []gosmtp.RcptOptions
	body []byte
}

type keeperSession struct {
	k *keeper
	m kept
}

func (k *keeper) NewSession(*gosmtp.Conn) (gosmtp.Session, error) { return &keeperSession{k: k}, nil }
func (s *keeperSession) Reset()                                   { s.m = kept{} }
func (s *keeperSession) Logout() error                            { return nil }
func (s *keeperSession) Mail(from string, o *gosmtp.MailOptions) error {
	s.m = kept{from: from, opts: *o}
	return nil
}
func (s *keeperSession) Rcpt(to string, o *gosmtp.RcptOptions) error {
	s.m.to, s.m.rcpt = append(s.m.to, to), append(s.m.rcpt, *o)
	return nil
}
func (s *keeperSession) Data(r io.Reader) error {
	b, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	s.m.body = b
	s.k.mu.Lock()
	s.k.sent = append(s.k.sent, s.m)
	s.k.mu.Unlock()
	return nil
}

func (k *keeper) last(t interface{ Fatal(...any) }) kept {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.sent) == 0 {
		t.Fatal("platform received nothing")
	}
	m := k.sent[len(k.sent)-1]
	k.sent = k.sent[:0]
	return m
}

// startKeeper starts a go-smtp server and returns its address.
func startKeeper(t testing.TB, k *keeper, lmtp bool) string {
	s := gosmtp.NewServer(k)
	s.Domain = "platform.example"
	s.LMTP = lmtp
	s.EnableSMTPUTF8, s.EnableDSN = true, true
	s.MaxLineLength = 1 << 20
	s.ErrorLog = quiet{}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { defer close(done); s.Serve(l) }()
	t.Cleanup(func() { s.Close(); <-done })
	return l.Addr().String()
}

type quiet struct{}

func (quiet) Printf(string, ...any) {}
func (quiet) Println(...any)        {}

// endpoint is a minimal endpoint for tests.
func endpoint(hosts ...string) Endpoint {
	return Endpoint{
		Platform: "ox", Origin: mail.OriginOutside, Protocol: ProtocolSMTP,
		Hosts: hosts, Helo: "node.example", TLS: dial.TLS{Policy: dial.TLSNone},
		Timeouts: Timeouts{Reset: 30 * time.Second}, // no machine is so busy that a connection goes for it
	}
}

func newPool(t testing.TB, ep Endpoint, o Options) *Pool {
	t.Helper()
	p, err := NewPool(ep, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

func path(t testing.TB, s string) mail.Path {
	t.Helper()
	p, err := mail.ParsePath(s, true)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestBodyArrivesByteIdentical(t *testing.T) {
	k := new(keeper)
	p := newPool(t, endpoint(startKeeper(t, k, false)), Options{})
	from, to := path(t, "a@out.example"), path(t, "b@health.example")
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	rapid.Check(t, func(r *rapid.T) {
		lines := rapid.SliceOf(rapid.OneOf(
			rapid.SampledFrom([]string{"", ".", "..", ". ", ".x", "From x", "\x00", "\xff\xfe"}),
			rapid.StringMatching(`[.a-z ]{0,120}`),
			rapid.Map(rapid.IntRange(0, 40000), func(n int) string { return string(bytes.Repeat([]byte("."), n)) }),
		)).Draw(r, "lines")
		var want []byte
		for _, l := range lines {
			want = append(append(want, l...), "\r\n"...)
		}
		tx, err := p.Open(ctx, mail.Client{}, from, nil)
		if err != nil {
			r.Fatal(err)
		}
		for _, err := range tx.Rcpts(ctx, []Recipient{{To: to}}) {
			if err != nil {
				r.Fatal(err)
			}
		}
		if err := tx.Data(ctx); err != nil {
			r.Fatal(err)
		}
		rest := want
		for len(rest) > 0 {
			n := rapid.IntRange(1, len(rest)).Draw(r, "piece")
			if rapid.Bool().Draw(r, "small") {
				n = min(n, 3)
			}
			if m, err := tx.Write(rest[:n]); m != n || err != nil {
				r.Fatal(m, err)
			}
			rest = rest[n:]
		}
		if errs := tx.Finish(ctx); len(errs) != 1 || errs[0] != nil {
			r.Fatal(errs)
		}
		if got := k.last(r); !bytes.Equal(got.body, want) {
			r.Fatalf("sent %q\n got %q", want, got.body)
		}
	})
	if s := p.Stats(); s.Open != 1 || s.Idle != 1 {
		t.Errorf("all transactions want one connection: %+v", s)
	}
}
