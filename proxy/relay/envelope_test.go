package relay

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"mailcutover/mail"
	"mailcutover/proxy/dial"

	gosmtp "github.com/emersion/go-smtp"
)

func TestParameters(t *testing.T) {
	all := []string{"PIPELINING", "SIZE 1000", "8BITMIME", "SMTPUTF8", "DSN", "REQUIRETLS", "AUTH PLAIN"}
	auth := "x"
	full := gosmtp.MailOptions{Body: gosmtp.Body8BitMIME, Size: 999, UTF8: true, Return: gosmtp.DSNReturnHeaders, EnvelopeID: "QQ+2B1", Auth: &auth}
	rcpt := gosmtp.RcptOptions{
		Notify:                []gosmtp.DSNNotify{gosmtp.DSNNotifySuccess, gosmtp.DSNNotifyFailure},
		OriginalRecipientType: gosmtp.DSNAddressTypeRFC822, OriginalRecipient: "Bob+2B@x.example",
	}
	for _, c := range []struct {
		name string
		ehlo []string
		from string
		mail gosmtp.MailOptions
		to   string
		rcpt gosmtp.RcptOptions
		want string // commands, or
		err  error
	}{
		{name: "nothing asked", ehlo: all, from: "a@x.example", to: "b@y.example",
			want: "MAIL FROM:<a@x.example>;RCPT TO:<b@y.example>"},
		{name: "everything", ehlo: all, from: "a@x.example", mail: full, to: "b@y.example", rcpt: rcpt,
			want: "MAIL FROM:<a@x.example> SIZE=999 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=QQ+2B1;RCPT TO:<b@y.example> NOTIFY=SUCCESS,FAILURE ORCPT=RFC822;Bob+2B@x.example"},
		{name: "null sender", ehlo: all, to: "b@y.example", want: "MAIL FROM:<>;RCPT TO:<b@y.example>"},
		{name: "quoted", ehlo: all, from: `"a> SIZE=1"@x.example`, to: `"b c"@y.example`,
			want: `MAIL FROM:<"a> SIZE=1"@x.example>;RCPT TO:<"b c"@y.example>`},
		{name: "no DSN, no SIZE", ehlo: []string{"PIPELINING"}, from: "a@x.example", mail: gosmtp.MailOptions{Size: 7, Return: gosmtp.DSNReturnFull, EnvelopeID: "x", Body: gosmtp.Body7Bit},
			to: "b@y.example", rcpt: rcpt, want: "MAIL FROM:<a@x.example>;RCPT TO:<b@y.example>"},
		{name: "SIZE without limit", ehlo: []string{"SIZE"}, from: "a@x.example", mail: gosmtp.MailOptions{Size: 1 << 40}, to: "b@y.example",
			want: "MAIL FROM:<a@x.example> SIZE=1099511627776;RCPT TO:<b@y.example>"},
		{name: "too large", ehlo: all, from: "a@x.example", mail: gosmtp.MailOptions{Size: 1001}, to: "b@y.example", err: ErrTooLarge},
		{name: "no 8BITMIME", ehlo: []string{"SIZE"}, from: "a@x.example", mail: gosmtp.MailOptions{Body: gosmtp.Body8BitMIME}, to: "b@y.example", err: ErrLacks8BitMIME},
		{name: "BINARYMIME", ehlo: all, from: "a@x.example", mail: gosmtp.MailOptions{Body: gosmtp.BodyBinaryMIME}, to: "b@y.example", err: ErrLacks8BitMIME},
		{name: "SMTPUTF8 for nothing", ehlo: []string{"SIZE"}, from: "a@x.example", mail: gosmtp.MailOptions{UTF8: true}, to: "b@y.example", want: "MAIL FROM:<a@x.example>;RCPT TO:<b@y.example>"},
		{name: "no SMTPUTF8, and an ORCPT that needs it", ehlo: []string{"SIZE"}, from: "a@x.example", mail: gosmtp.MailOptions{UTF8: true}, to: "b@y.example",
			rcpt: gosmtp.RcptOptions{OriginalRecipientType: gosmtp.DSNAddressTypeUTF8, OriginalRecipient: "ö@y.example"}, err: ErrLacksSMTPUTF8},
		{name: "sender needs SMTPUTF8", ehlo: []string{"SIZE"}, from: "ä@x.example", to: "b@y.example", err: ErrLacksSMTPUTF8},
		{name: "recipient needs SMTPUTF8, and so does the message", ehlo: []string{"SIZE"}, from: "a@x.example", mail: gosmtp.MailOptions{UTF8: true}, to: "ö@y.example", err: errTableUTF8},
		{name: "only the table's address needs SMTPUTF8", ehlo: []string{"SIZE"}, from: "a@x.example", to: "ö@y.example", err: errTableUTF8},
		{name: "the same is worth an alarm", ehlo: []string{"SIZE"}, from: "a@x.example", to: "ö@y.example", err: ErrNeedsOperator},
		{name: "recipient gets SMTPUTF8", ehlo: all, from: "a@x.example", to: "ö@y.example", want: "MAIL FROM:<a@x.example> SMTPUTF8;RCPT TO:<ö@y.example>"},
		{name: "REQUIRETLS in plain text", ehlo: all, from: "a@x.example", mail: gosmtp.MailOptions{RequireTLS: true}, to: "b@y.example", err: ErrLacksRequireTLS},
		{name: "ENVID with a command", ehlo: all, from: "a@x.example", mail: gosmtp.MailOptions{EnvelopeID: "x\r\nRSET"}, to: "b@y.example", err: errBadParameter},
		{name: "ORCPT with a parameter", ehlo: all, from: "a@x.example", to: "b@y.example", rcpt: gosmtp.RcptOptions{OriginalRecipient: "x NOTIFY=NEVER"}, err: errBadParameter},
	} {
		t.Run(c.name, func(t *testing.T) {
			peer := startPeer(t, &peer{ehlo: c.ehlo})
			p := newPool(t, endpoint(peer.addr), Options{})
			ctx := testContext(t)
			tx, err := p.Open(ctx, mail.Client{}, path(t, c.from), &c.mail)
			if err != nil {
				t.Fatal(err)
			}
			defer tx.Abort()
			err = tx.Rcpts(ctx, []Recipient{{To: path(t, c.to), Options: c.rcpt}})[0]
			if !errors.Is(err, c.err) {
				t.Fatalf("got %v, want %v", err, c.err)
			}
			got := strings.TrimPrefix(peer.commands(), "EHLO node.example")
			if c.err == nil && got != ";"+c.want || c.err != nil && strings.Contains(got, "RCPT") {
				t.Errorf("commands\n got %s\nwant ;%s", got, c.want)
			}
			if r, ok := c.err.(*mail.Reply); ok && mail.AsReply(err).Code != r.Code {
				t.Errorf("passed on as %v", mail.AsReply(err))
			}
			if (c.err == errBadParameter || c.err == errTableUTF8) && !mail.IsTemporary(mail.AsReply(err)) {
				t.Errorf("a mistake of ours is passed on as %v", mail.AsReply(err))
			}
		})
	}
}

func TestParametersOfLaterRecipients(t *testing.T) {
	peer := startPeer(t, &peer{ehlo: []string{"SMTPUTF8", "PIPELINING"}})
	p := newPool(t, endpoint(peer.addr), Options{})
	ctx := testContext(t)
	tx := open(ctx, t, p)
	defer tx.Abort()
	errs := tx.Rcpts(ctx, []Recipient{{To: path(t, "b@x.example")}, {}})
	if errs[0] != nil || errs[1] == nil {
		t.Errorf("the null path is no recipient: %v", errs)
	}
	errs = tx.Rcpts(ctx, []Recipient{{To: path(t, "ö@x.example")}, {To: path(t, "c@x.example")}})
	if r := mail.AsReply(errs[0]); r.Code != 452 || errs[1] != nil {
		t.Errorf("got %v", errs)
	}
	if len(tx.given) != 2 {
		t.Errorf("%d accepted", len(tx.given))
	}
}

var client = mail.Client{
	Addr:  netip.MustParseAddrPort("192.0.2.7:40001"),
	Local: netip.MustParseAddrPort("198.51.100.1:25"),
	Name:  "mx.out.example", Helo: "x y\r\n=", With: "ESMTPS",
}

func TestXForward(t *testing.T) {
	for _, c := range []struct {
		name, keyword, answer, want string
	}{
		{"all", "XFORWARD NAME ADDR PORT PROTO HELO IDENT SOURCE", "",
			"XFORWARD NAME=mx.out.example ADDR=192.0.2.7 PORT=40001;XFORWARD PROTO=ESMTP HELO=x+20y+0D+0A+3D;"},
		{"some", "XFORWARD ADDR", "", "XFORWARD ADDR=192.0.2.7;"},
		{"not announced", "HELP", "", ""},
		{"refused", "XFORWARD ADDR", "550 5.7.0 no", "XFORWARD ADDR=192.0.2.7;"},
	} {
		t.Run(c.name, func(t *testing.T) {
			peer := startPeer(t, &peer{ehlo: []string{"PIPELINING", c.keyword}, answer: func(_ *session, v, _ string) string {
				return map[string]string{"XFORWARD": c.answer}[v]
			}})
			ep := endpoint(peer.addr)
			ep.Identity = IdentityXFORWARD
			p := newPool(t, ep, Options{})
			for range 2 {
				if err := deliverFrom(testContext(t), t, p, client, nil, "x\r\n", "b@x.example").err(); err != nil {
					t.Fatal(err)
				}
			}
			one := c.want + "MAIL FROM:<a@out.example>;RCPT TO:<b@x.example>;DATA"
			if got := peer.commands(); got != "EHLO node.example;"+one+";"+one {
				t.Errorf("commands %s", got)
			}
		})
	}
}

func TestXClient(t *testing.T) {
	peer := startPeer(t, &peer{ehlo: []string{"PIPELINING", "XCLIENT ADDR NAME HELO"}, answer: func(_ *session, v, _ string) string {
		return map[string]string{"XCLIENT": "220 peer again"}[v]
	}})
	ep := endpoint(peer.addr)
	ep.Identity = IdentityXCLIENT
	p := newPool(t, ep, Options{})
	other := mail.Client{Addr: netip.MustParseAddrPort("[2001:db8::1]:1")}
	for _, c := range []mail.Client{client, client, other} {
		if err := deliverFrom(testContext(t), t, p, c, nil, "x\r\n", "b@x.example").err(); err != nil {
			t.Fatal(err)
		}
	}
	const msg = ";MAIL FROM:<a@out.example>;RCPT TO:<b@x.example>;DATA"
	want := "EHLO node.example;XCLIENT ADDR=192.0.2.7 NAME=mx.out.example HELO=x+20y+0D+0A+3D;EHLO node.example" + msg + msg +
		"|EHLO node.example;XCLIENT ADDR=IPV6:2001:db8::1 NAME=[UNAVAILABLE] HELO=[UNAVAILABLE];EHLO node.example" + msg
	if got := peer.commands(); got != want {
		t.Errorf("commands\n got %s\nwant %s", got, want)
	}
}

func TestXClientMissingOrRefusedSendsNothing(t *testing.T) {
	for keyword, answer := range map[string]string{"HELP": "", "XCLIENT ADDR": "550 5.7.1 insufficient authorization"} {
		peer := startPeer(t, &peer{ehlo: []string{"PIPELINING", keyword}, answer: func(_ *session, v, _ string) string {
			return map[string]string{"XCLIENT": answer}[v]
		}})
		ep := endpoint(peer.addr)
		ep.Identity = IdentityXCLIENT
		out := deliverFrom(testContext(t), t, newPool(t, ep, Options{}), client, nil, "x\r\n", "b@x.example")
		if err := out.err(); err == nil || mail.AsReply(err).Code != 451 || strings.Contains(peer.commands(), "MAIL") {
			t.Errorf("%s: %v, commands %s", keyword, err, peer.commands())
		}
	}
}

func TestProxyV2(t *testing.T) {
	six := client
	six.Addr = netip.MustParseAddrPort("[2001:db8::7]:1")
	for _, c := range []struct {
		name   string
		client mail.Client
		want   string
	}{
		{"IPv4", client, "\x21\x11\x00\x0c\xc0\x00\x02\x07\xc6\x33\x64\x01\x9c\x41\x00\x19"},
		{"IPv6 to IPv4", six, "\x21\x21\x00\x24\x20\x01\x0d\xb8" + strings.Repeat("\x00", 11) + "\x07" +
			strings.Repeat("\x00", 10) + "\xff\xff\xc6\x33\x64\x01\x00\x01\x00\x19"},
		{"nobody", mail.Client{}, "\x20\x00\x00\x00"},
	} {
		id := (&Pool{ep: Endpoint{Identity: IdentityProxyV2}}).identityOf(c.client)
		if got := string(dial.AppendProxyV2(nil, id.Addr, id.Local)); got != "\r\n\r\n\x00\r\nQUIT\n"+c.want {
			t.Errorf("%s: %q", c.name, got)
		}
	}
}

// With PROXY a connection belongs to one client connection; a full pool makes room.
func TestProxyConnectionsAreNotShared(t *testing.T) {
	peer := startPeer(t, new(peer))
	ep := endpoint(peer.addr)
	ep.Identity, ep.Limits.Connections = IdentityProxyV2, 2
	opts := Options{Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		nc, err := new(net.Dialer).DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &headerless{Conn: nc}, nil
	}}
	p := newPool(t, ep, opts)
	ctx := testContext(t)
	for i, port := range []uint16{1, 1, 2, 1, 3, 3} {
		c := client
		c.Addr = netip.AddrPortFrom(c.Addr.Addr(), port)
		if err := deliverFrom(ctx, t, p, c, nil, "x\r\n", "b@x.example").err(); err != nil {
			t.Fatal(err)
		}
		if want := []int{1, 1, 2, 2, 3, 3}[i]; len(peer.sessions()) != want {
			t.Errorf("message %d: %d connections, want %d", i, len(peer.sessions()), want)
		}
	}
	if s := p.Stats(); s.Open != 2 {
		t.Errorf("%+v", s)
	}
}

// headerless drops the first write, the PROXY header, which the peer doesn't understand.
type headerless struct {
	net.Conn
	past bool
}

func (h *headerless) Write(p []byte) (int, error) {
	if !h.past {
		h.past = true
		return len(p), nil
	}
	return h.Conn.Write(p)
}

// The configured size is the limit where it is less than what the platform announces: for
// what is declared, and for what comes.
func TestMaxSize(t *testing.T) {
	for _, c := range []struct {
		name      string
		announced string
		max       int64
		want      int64 // Capabilities.Size
		declared  int64
		body      int
		code      int // 0: taken
	}{
		{"not configured", "SIZE 1000", 0, 1000, 900, 900, 0},
		{"less than announced", "SIZE 1000", 500, 500, 500, 500, 0},
		{"declared more", "SIZE 1000", 500, 500, 501, 1, 552},
		{"comes as more", "SIZE 1000", 500, 500, 0, 501, 552},
		{"comes as more than declared", "SIZE 1000", 500, 500, 10, 501, 552},
		{"more than announced", "SIZE 1000", 5000, 1000, 1001, 1, 552},
		{"nothing announced", "HELP", 500, 500, 501, 1, 552},
		{"no limit announced", "SIZE", 500, 500, 0, 501, 552},
	} {
		t.Run(c.name, func(t *testing.T) {
			peer := startPeer(t, &peer{ehlo: []string{c.announced}})
			ep := endpoint(peer.addr)
			ep.MaxSize = c.max
			p := newPool(t, ep, Options{})
			if got := p.Capabilities(); got.Known || got.Size != c.max {
				t.Errorf("before any connection: %+v", got)
			}
			body := strings.Repeat(".", c.body) // dots that are doubled don't count twice
			out := deliverFrom(testContext(t), t, p, mail.Client{}, &gosmtp.MailOptions{Size: c.declared}, body, "b@x.example")
			err := out.err()
			if c.code == 0 && err != nil || c.code != 0 && (!errors.Is(err, ErrTooLarge) || mail.AsReply(err).Code != c.code) {
				t.Errorf("got %v", err)
			}
			if n := len(peer.bodies()); n > 0 && c.code != 0 {
				t.Errorf("platform has %d messages", n)
			}
			if got := p.Capabilities().Size; got != c.want {
				t.Errorf("size %d, want %d", got, c.want)
			}
			if s := p.Stats(); s.InUse != 0 || !s.Hosts[0].Healthy {
				t.Errorf("%+v", s)
			}
			if c.code != 0 && c.body > 1 {
				if err := out.tx.Data(testContext(t)); !errors.Is(err, ErrTooLarge) {
					t.Errorf("afterwards: %v", err)
				}
			}
		})
	}
	ep := endpoint("127.0.0.1:25")
	ep.MaxSize = -1
	if err := ep.Validate(); err == nil || !strings.Contains(err.Error(), "size -1") {
		t.Errorf("got %v", err)
	}
}

// A message that was declared SMTPUTF8 and needs it nowhere goes to a platform without it; one
// whose header needs it is refused for good, before the dot, however it is cut.
func TestASCIIHeader(t *testing.T) {
	for _, c := range []struct {
		name, text string
		taken      bool
	}{
		{"nothing beyond ASCII", "Subject: x\r\n\r\nhello\r\n", true},
		{"the body is", "Subject: x\r\n\r\ngrüße\r\n", true},
		{"no header", "\r\ngrüße\r\n", true},
		{"no body", "Subject: x\r\n", true},
		{"the header is", "Subject: grüße\r\n\r\nhello\r\n", false},
		{"its last line is", "Subject: x\r\nX: ü\r\n\r\nhello\r\n", false},
		{"a header and no body", "Subject: ü\r\n", false},
	} {
		for cut := 1; cut <= 3; cut++ {
			peer := startPeer(t, &peer{ehlo: []string{"8BITMIME"}})
			p := newPool(t, endpoint(peer.addr), Options{})
			ctx := testContext(t)
			tx, err := p.Open(ctx, mail.Client{}, path(t, "a@x.example"), &gosmtp.MailOptions{UTF8: true, Body: gosmtp.Body8BitMIME})
			if err != nil {
				t.Fatal(err)
			}
			if err := tx.Rcpts(ctx, []Recipient{{To: path(t, "b@y.example")}})[0]; err != nil {
				t.Fatal(err)
			}
			if err := tx.Data(ctx); err != nil {
				t.Fatal(err)
			}
			for part := range slices.Chunk([]byte(c.text), cut) {
				if _, err = tx.Write(part); err != nil {
					break
				}
			}
			if err == nil {
				err = tx.Flush(ctx)
			}
			if err == nil {
				err = tx.Dot(ctx)[0]
			}
			switch {
			case c.taken && (err != nil || len(peer.bodies()) != 1):
				t.Errorf("%s, in pieces of %d: %v", c.name, cut, err)
			case !c.taken && (!errors.Is(err, ErrLacksSMTPUTF8) || mail.AsReply(err).Code != 550 || len(peer.bodies()) != 0):
				t.Errorf("%s, in pieces of %d: %v, %d stored", c.name, cut, err, len(peer.bodies()))
			}
			tx.Abort()
		}
	}
}
