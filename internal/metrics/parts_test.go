package metrics

import (
	"context"
	"errors"
	"io"
	"net"
	netsmtp "net/smtp"
	"strings"
	"testing"
	"time"

	gosmtp "github.com/emersion/go-smtp"

	"mailcutover/internal/platformtest"
	"mailcutover/mail"
	"mailcutover/proxy/dial"
	"mailcutover/proxy/relay"
	"mailcutover/proxy/smtp"
)

func lines(t *testing.T, m *Metrics, want ...string) {
	t.Helper()
	text := scrape(t, m)
	for _, line := range want {
		if !strings.Contains(text, "\n"+line+"\n") {
			name, _, _ := strings.Cut(line, "{")
			t.Errorf("%s is missing in\n%s", line, text[max(strings.Index(text, "\n"+name), 0):])
		}
	}
}

// A real pool calls its observer so that the connections add up to none in the end.
func TestCountsOfARealPool(t *testing.T) {
	platform, err := platformtest.Start(platformtest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer platform.Close()
	nobody, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody.Close()

	m := New("1", Sources{})
	pool, err := relay.NewPool(relay.Endpoint{
		Platform: "exchange", Origin: mail.OriginOutside, Protocol: relay.ProtocolSMTP,
		Hosts: []string{nobody.Addr().String(), platform.Addr()}, Helo: "mx1.example.org",
		TLS: dial.TLS{Policy: dial.TLSNone}, Limits: relay.Limits{MaxMessages: 2, Backoff: time.Hour},
	}, relay.Options{Observer: m.Endpoint("exchange", mail.OriginOutside)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	from, _ := mail.ParsePath("a@example.com", false)
	to, _ := mail.ParsePath("b@example.org", false)
	for range 3 {
		tx, err := pool.Open(ctx, mail.Client{}, from, nil)
		if err != nil {
			t.Fatal(err)
		}
		errs := tx.Rcpts(ctx, []relay.Recipient{{To: to}})
		if err := errors.Join(errs[0], tx.Data(ctx)); err != nil {
			t.Fatal(err)
		}
		_, err = io.WriteString(tx, "Subject: x\r\n\r\ntext\r\n")
		if err := errors.Join(err, tx.Flush(ctx)); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(tx.Dot(ctx)...); err != nil {
			t.Fatal(err)
		}
		tx.Abort()
	}
	pool.Close()
	labels := `host="` + platform.Addr() + `",origin="outside",platform="exchange"`
	lines(t, m,
		`mailcutover_platform_connections{`+labels+`} 0`,
		`mailcutover_platform_connections{host="`+nobody.Addr().String()+`",origin="outside",platform="exchange"} 0`,
		`mailcutover_platform_dials_total{`+labels+`,result="ok"} 2`,
		`mailcutover_platform_dials_total{host="`+nobody.Addr().String()+`",origin="outside",platform="exchange",result="error"} 1`,
		`mailcutover_platform_waits_total{origin="outside",platform="exchange",result="ok"} 3`,
		`mailcutover_platform_answers_total{code="250",`+labels+`,verb="MAIL"} 3`,
		`mailcutover_platform_answers_total{code="250",`+labels+`,verb="RCPT"} 3`,
		`mailcutover_platform_answers_total{code="354",`+labels+`,verb="DATA"} 3`,
		`mailcutover_platform_answers_total{code="250",`+labels+`,verb="."} 3`,
		`mailcutover_platform_connections_closed_total{origin="outside",platform="exchange",reason="messages"} 1`,
		`mailcutover_platform_connections_closed_total{origin="outside",platform="exchange",reason="shutdown"} 1`,
	)
}

// sink takes every message.
type sink struct{}

func (sink) NewSession(context.Context, mail.Client) (smtp.Session, error) { return sink{}, nil }
func (sink) Mail(context.Context, mail.Client, mail.Path, *gosmtp.MailOptions) error {
	return nil
}
func (sink) Rcpts(_ context.Context, r []smtp.Recipient) []error { return make([]error, len(r)) }
func (sink) Data(_ context.Context, body smtp.Body) []error {
	_, err := io.Copy(io.Discard, body)
	return []error{err}
}
func (sink) Reset() {}
func (sink) Close() {}

// A real listener calls its observer.
func TestCountsOfARealListener(t *testing.T) {
	m := New("1", Sources{})
	o := smtp.DefaultOptions()
	o.ID, o.Hostname, o.Observer = "mx", "mx1.example.org", m.Listener("mx")
	server, err := smtp.NewServer(o, sink{})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(t.Context(), l) }()
	const body = "Subject: x\r\n\r\ntext\r\n"
	for range 2 {
		if err := netsmtp.SendMail(l.Addr().String(), nil, "a@example.com", []string{"b@example.org"}, []byte(body)); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := server.Shutdown(ctx); err != nil {
		t.Error(err)
	}
	<-served
	lines(t, m,
		`mailcutover_listener_connections{listener="mx"} 0`,
		`mailcutover_listener_connections_total{listener="mx"} 2`,
		`mailcutover_listener_commands_total{listener="mx",verb="MAIL"} 2`,
		`mailcutover_listener_replies_total{code="354",listener="mx"} 2`,
		`mailcutover_listener_messages_total{end="complete",listener="mx"} 2`,
		`mailcutover_listener_message_bytes_total{listener="mx"} 40`,
	)
}
