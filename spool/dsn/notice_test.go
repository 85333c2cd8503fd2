package dsn

import (
	"bytes"
	"errors"
	"io"
	"mime"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/emersion/go-message"
	gosmtp "github.com/emersion/go-smtp"

	"mailcutover/mail"
	"mailcutover/routing"
)

var (
	testNow      = time.Date(2026, 11, 21, 18, 30, 0, 0, time.FixedZone("", 3600))
	testSettings = Settings{Host: "mx.example"}
)

const testHeader = "Received: from a\r\n\tby mx.example (mailcutover berlin)\r\nSubject: secret plans\r\n"

// parsed is a notice read back.
type parsed struct {
	header message.Header
	types  []string
	parts  []string // decoded
	status []map[string]string
}

func parse(t *testing.T, m *Message) parsed {
	t.Helper()
	if bytes.Contains(bytes.ReplaceAll(m.Content, []byte("\r\n"), nil), []byte("\n")) || bytes.Contains(bytes.ReplaceAll(m.Content, []byte("\r\n"), nil), []byte("\r")) {
		t.Error("the notice has bare line ends")
	}
	e, err := message.Read(bytes.NewReader(m.Content))
	if err != nil {
		t.Fatalf("read the notice back: %v\n%s", err, m.Content)
	}
	p := parsed{header: e.Header}
	mr := e.MultipartReader()
	if mr == nil {
		t.Fatalf("not a multipart:\n%s", m.Content)
	}
	for {
		part, err := mr.NextPart()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatalf("next part: %v", err)
		}
		mediaType, _, _ := part.Header.ContentType()
		body, err := io.ReadAll(part.Body)
		if err != nil {
			t.Fatalf("read part %s: %v", mediaType, err)
		}
		p.types = append(p.types, mediaType)
		p.parts = append(p.parts, string(body))
	}
	if len(p.parts) < 2 {
		t.Fatalf("%d parts, want two at least", len(p.parts))
	}
	for group := range strings.SplitSeq(strings.TrimSuffix(p.parts[1], "\r\n"), "\r\n\r\n") {
		fields := make(map[string]string)
		for line := range strings.SplitSeq(group, "\r\n") {
			name, value, ok := strings.Cut(line, ": ")
			if !ok || len(line) > 998 {
				t.Errorf("status has the line %q", line)
			}
			if _, twice := fields[name]; twice {
				t.Errorf("status has %s twice in one group", name)
			}
			fields[name] = value
		}
		p.status = append(p.status, fields)
	}
	return p
}

func path(t *testing.T, s string) mail.Path {
	t.Helper()
	p, err := mail.ParsePath(s, true)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// failed is a notice as most are.
func failed(t *testing.T) *Notice {
	content := testHeader + "\r\nthe body of it\r\n"
	return &Notice{
		Kind: Failed, Transaction: "01jd2k3m4n5p6q7r8s9t0u1v2b", Time: testNow,
		Original: Original{
			Transaction: "01jd2k3m4n5p6q7r8s9t0u1v2a", From: path(t, "sender@out.example"),
			MessageID: "<a.b@out.example>", Arrived: testNow.Add(-time.Hour),
			Size: int64(len(content)), Content: strings.NewReader(content),
		},
		Recipients: []Recipient{{
			Address: "m@health.example", Reply: mail.NewReply(550, 5, 7, 1, "No such content"), Platform: "exchange", LastAttempt: testNow,
		}},
	}
}

func TestFailed(t *testing.T) {
	n := failed(t)
	n.Original.Options.EnvelopeID = "QQ+2B314"
	n.Recipients[0].Options.OriginalRecipientType, n.Recipients[0].Options.OriginalRecipient = "RFC822", "Me+2Bx@health.example"
	m, err := Write(testSettings, n)
	if err != nil {
		t.Fatal(err)
	}
	if m.To.String() != "sender@out.example" || m.Options.UTF8 || m.Options.Body != "" || m.Options.Size != int64(len(m.Content)) {
		t.Errorf("sent to %s with %+v", m.To, m.Options)
	}
	if !isASCII(m.Content) {
		t.Error("an ASCII message's notice has 8-bit bytes")
	}
	p := parse(t, m)
	mediaType, params, _ := p.header.ContentType()
	if mediaType != "multipart/report" || params["report-type"] != "delivery-status" {
		t.Errorf("content type %s %v", mediaType, params)
	}
	for name, want := range map[string]string{
		"Auto-Submitted": "auto-replied", "To": "<sender@out.example>", "From": "Mail Delivery System <MAILER-DAEMON@mx.example>",
		"In-Reply-To": "<a.b@out.example>", "References": "<a.b@out.example>", "Message-ID": m.ID, "MIME-Version": "1.0",
		"Date": "Sat, 21 Nov 2026 18:30:00 +0100",
	} {
		if got := p.header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if strings.Join(p.types, " ") != "text/plain message/delivery-status text/rfc822-headers" {
		t.Errorf("parts are %v", p.types)
	}
	if p.parts[2] != testHeader {
		t.Errorf("returned %q, want the header", p.parts[2])
	}
	for name, want := range map[string]string{"Original-Envelope-Id": "QQ+314", "Reporting-MTA": "dns; mx.example", "Arrival-Date": "Sat, 21 Nov 2026 17:30:00 +0100"} {
		if got := p.status[0][name]; got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	for name, want := range map[string]string{
		"Original-Recipient": "rfc822; Me+x@health.example", "Final-Recipient": "rfc822; m@health.example", "Action": "failed", "Status": "5.7.1",
		"Diagnostic-Code": "smtp; 550 5.7.1 No such content", "Last-Attempt-Date": "Sat, 21 Nov 2026 18:30:00 +0100",
	} {
		if got := p.status[1][name]; got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	for _, want := range []string{"konnte den unten genannten Empfängern", "could not be delivered", "<m@health.example>", "550 5.7.1 No such content", "01jd2k3m4n5p6q7r8s9t0u1v2a"} {
		if !strings.Contains(p.parts[0], want) {
			t.Errorf("the text lacks %q:\n%s", want, p.parts[0])
		}
	}
}

func TestStatus(t *testing.T) {
	for _, c := range []struct {
		name  string
		kind  Kind
		rcpt  Recipient
		want  string
		other map[string]string
	}{
		{"permanent", Failed, Recipient{Reply: mail.NewReply(554, 5, 6, 0, "x"), Platform: "ox"}, "5.6.0", nil},
		{"without enhanced code", Failed, Recipient{Reply: mail.NewReply(554, 0, 0, 0, "x"), Platform: "ox"}, "5.0.0", map[string]string{"Diagnostic-Code": "smtp; 554 x"}},
		{"expired keeps its reason", Failed, Recipient{Expired: true, Reply: mail.NewReply(452, 4, 2, 2, "full"), Platform: "ox"}, "4.2.2", nil},
		{"expired after a 5yz that was kept waiting", Failed, Recipient{Expired: true, Reply: mail.NewReply(550, 5, 1, 1, "who"), Platform: "ox"}, "4.1.1", nil},
		{"expired without any answer", Failed, Recipient{Expired: true}, "4.4.7", map[string]string{"Diagnostic-Code": ""}},
		{"our own reason is nobody's diagnostic", Failed, Recipient{Reply: mail.NewReply(550, 5, 7, 1, "x")}, "5.7.1", map[string]string{"Diagnostic-Code": ""}},
		{"delayed", Delayed, Recipient{Reply: mail.NewReply(550, 5, 1, 1, "who"), Platform: "ox", RetryUntil: testNow}, "4.1.1", map[string]string{"Will-Retry-Until": "Sat, 21 Nov 2026 18:30:00 +0100", "Action": "delayed"}},
		{"delayed, nothing known", Delayed, Recipient{}, "4.0.0", map[string]string{"Will-Retry-Until": "", "Last-Attempt-Date": ""}},
		{"relayed", Relayed, Recipient{Reply: mail.NewReply(250, 2, 0, 0, "ok"), Platform: "ox"}, "2.0.0", map[string]string{"Action": "relayed"}},
	} {
		n := failed(t)
		n.Kind, n.Recipients = c.kind, []Recipient{c.rcpt}
		n.Recipients[0].Address = "m@health.example"
		m, err := Write(testSettings, n)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		p := parse(t, m)
		if got := p.status[1]["Status"]; got != c.want {
			t.Errorf("%s: status %s, want %s", c.name, got, c.want)
		}
		for name, want := range c.other {
			if got := p.status[1][name]; got != want {
				t.Errorf("%s: %s is %q, want %q", c.name, name, got, want)
			}
		}
	}
}

// TestReturned: never more of the original than was asked for and is allowed.
func TestReturned(t *testing.T) {
	body := "\r\n" + strings.Repeat("a line of the body\r\n", 20)
	bounded := Settings{Host: "mx.example", OriginalBytes: 600}
	for _, c := range []struct {
		name     string
		settings Settings
		kind     Kind
		ret      gosmtp.DSNReturn
		utf8     bool
		content  string
		want     string // media type; empty: no such part
		returned string
	}{
		{"nothing asked for", testSettings, Failed, "", false, testHeader + body, "text/rfc822-headers", testHeader},
		{"headers", testSettings, Failed, "HDRS", false, testHeader + body, "text/rfc822-headers", testHeader},
		{"full", testSettings, Failed, "FULL", false, testHeader + body, "message/rfc822", testHeader + body},
		{"full, 8-bit", testSettings, Failed, "FULL", false, testHeader + "\r\nGr\u00fc\u00dfe\r\n", "message/rfc822", testHeader + "\r\nGr\u00fc\u00dfe\r\n"},
		{"full, SMTPUTF8", testSettings, Failed, "FULL", true, testHeader + "\r\nGr\u00fc\u00dfe\r\n", "message/global", testHeader + "\r\nGr\u00fc\u00dfe\r\n"},
		{"headers, 8-bit", testSettings, Failed, "HDRS", false, "Subject: Gr\u00fc\u00dfe\r\n\r\nx\r\n", "text/rfc822-headers", "Subject: Gr\u00fc\u00dfe\r\n"},
		{"headers, SMTPUTF8", testSettings, Failed, "HDRS", true, "Subject: Gr\u00fc\u00dfe\r\n\r\nx\r\n", "message/global-headers", "Subject: Gr\u00fc\u00dfe\r\n"},
		{"a delay returns no content", testSettings, Delayed, "FULL", false, testHeader + body, "text/rfc822-headers", testHeader},
		{"too large", bounded, Failed, "FULL", false, testHeader + body + body, "text/rfc822-headers", testHeader},
		{"at the bound", bounded, Failed, "FULL", false, testHeader + "\r\n" + strings.Repeat("x", 600-len(testHeader)-2), "message/rfc822", testHeader + "\r\n" + strings.Repeat("x", 600-len(testHeader)-2)},
		{"one over the bound", bounded, Failed, "FULL", false, testHeader + "\r\n" + strings.Repeat("x", 600-len(testHeader)-1), "text/rfc822-headers", testHeader},
		{"a header that is too large ends with a field", bounded, Failed, "", false, testHeader + "X-Long: " + strings.Repeat("x\r\n\t", 300) + "\r\n\r\nbody", "text/rfc822-headers", testHeader},
		{"nothing but a header", testSettings, Failed, "", false, testHeader, "text/rfc822-headers", testHeader},
		{"an empty message", testSettings, Failed, "FULL", false, "", "", ""},
		{"nothing but a body", testSettings, Failed, "", false, "\r\nbody\r\n", "text/rfc822-headers", ""},
	} {
		n := failed(t)
		n.Kind, n.Original.Options.Return, n.Original.Options.UTF8 = c.kind, c.ret, c.utf8
		n.Original.Size, n.Original.Content = int64(len(c.content)), strings.NewReader(c.content)
		m, err := Write(c.settings, n)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		p := parse(t, m)
		if c.want == "" {
			if len(p.parts) != 2 {
				t.Errorf("%s: parts %v", c.name, p.types)
			}
			continue
		}
		if len(p.parts) != 3 || p.types[2] != c.want || p.parts[2] != c.returned {
			t.Errorf("%s: parts %v, the last %.100q of %d bytes, want %s of %d", c.name, p.types, p.parts[len(p.parts)-1], len(p.parts[len(p.parts)-1]), c.want, len(c.returned))
		}
		if want := !isASCII(m.Content); want != (m.Options.Body == gosmtp.Body8BitMIME) {
			t.Errorf("%s: 8-bit is %v, BODY is %q", c.name, want, m.Options.Body)
		}
	}
}

func TestUnreadableOriginal(t *testing.T) {
	n := failed(t)
	n.Original.Content = io.MultiReader(strings.NewReader(testHeader), iotest.ErrReader(errors.New("sick disk")))
	m, err := Write(testSettings, n)
	if err != nil {
		t.Fatal(err)
	}
	if p := parse(t, m); len(p.parts) != 2 {
		t.Errorf("parts %v, want the notice alone", p.types)
	}
}

func TestInternationalised(t *testing.T) {
	for _, c := range []struct {
		name      string
		from      string
		utf8      bool // the message came with SMTPUTF8
		rcpt      string
		orcptType gosmtp.DSNAddressType
		orcpt     string
		global    bool
		wantFinal string
		wantOrig  string
	}{
		{"ASCII sender, table's address is not", "a@out.example", false, "b\u00fcro@health.example", "RFC822", "buero@health.example", false, `utf-8; b\x{FC}ro@health.example`, "rfc822; buero@health.example"},
		{"SMTPUTF8", "a@out.example", true, "b\u00fcro@health.example", "UTF-8", `b\x{FC}ro@health.example`, true, "utf-8; b\u00fcro@health.example", "utf-8; b\u00fcro@health.example"},
		{"raw ORCPT", "b\u00e4@out.example", true, "m@health.example", "UTF-8", "b\u00fcro@health.example", true, "rfc822; m@health.example", "utf-8; b\u00fcro@health.example"},
		{"utf-8 ORCPT in an ASCII notice", "a@out.example", false, "m@health.example", "UTF-8", `b\x{FC}ro@health.example`, false, "rfc822; m@health.example", `utf-8; b\x{FC}ro@health.example`},
		{"an ORCPT that isn't one", "a@out.example", false, "m@health.example", "UTF-8", `b\x{110000}ro`, false, "rfc822; m@health.example", ""},
	} {
		n := failed(t)
		n.Original.From = path(t, c.from)
		n.Original.Options.UTF8 = c.utf8
		n.Recipients[0] = Recipient{Address: routing.Address(c.rcpt), Options: gosmtp.RcptOptions{OriginalRecipientType: c.orcptType, OriginalRecipient: c.orcpt}}
		m, err := Write(testSettings, n)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		p := parse(t, m)
		want := "message/delivery-status"
		if c.global {
			want = "message/global-delivery-status"
		}
		_, params, _ := p.header.ContentType()
		if p.types[1] != want || "message/"+params["report-type"] != want {
			t.Errorf("%s: part is %s, report type %s", c.name, p.types[1], params["report-type"])
		}
		if got := p.status[1]["Final-Recipient"]; got != c.wantFinal {
			t.Errorf("%s: final recipient %q, want %q", c.name, got, c.wantFinal)
		}
		if got := p.status[1]["Original-Recipient"]; got != c.wantOrig {
			t.Errorf("%s: original recipient %q, want %q", c.name, got, c.wantOrig)
		}
		if isASCII([]byte(c.from)) && (m.Options.UTF8 || !isASCII(m.Content)) {
			t.Errorf("%s: an ASCII sender's notice needs SMTPUTF8 or 8 bits", c.name)
		}
		if !isASCII([]byte(c.from)) && !m.Options.UTF8 {
			t.Errorf("%s: the sender's address needs SMTPUTF8", c.name)
		}
	}
}

// TestNothingInjected puts line ends and fields wherever a peer has a say.
func TestNothingInjected(t *testing.T) {
	n := failed(t)
	n.Original.Options.EnvelopeID = "a+0D+0AAction: delivered"
	n.Original.MessageID = "<a@b>\r\nBcc: x@y>"
	r := &n.Recipients[0]
	r.Options.OriginalRecipientType, r.Options.OriginalRecipient = "RFC822", "x+0AStatus:+202.0.0+0D+0A+0D+0AAction:+20delivered"
	r.Address = "a\r\nx@health.example"
	r.Reply = mail.NewReply(550, 5, 7, 1, "no\r\n.\r\nAction: delivered"+strings.Repeat("x", 2000))
	m, err := Write(testSettings, n)
	if err != nil {
		t.Fatal(err)
	}
	p := parse(t, m)
	if len(p.status) != 2 || p.status[1]["Action"] != "failed" || p.status[1]["Status"] != "5.7.1" || p.header.Has("Bcc") || p.header.Has("References") {
		t.Errorf("status %v, header %v", p.status, p.header)
	}
	if strings.Contains(p.parts[0], "\r\nAction") || strings.Contains(p.parts[0], "\r\n.\r\n") {
		t.Errorf("the text has a line that a peer made:\n%s", p.parts[0])
	}
}

func TestWanted(t *testing.T) {
	const never, success, failure, delay = gosmtp.DSNNotifyNever, gosmtp.DSNNotifySuccess, gosmtp.DSNNotifyFailure, gosmtp.DSNNotifyDelayed
	for _, c := range []struct {
		notify                   []gosmtp.DSNNotify
		failed, delayed, relayed bool
	}{
		{nil, true, true, false},
		{[]gosmtp.DSNNotify{never}, false, false, false},
		{[]gosmtp.DSNNotify{success}, false, false, true},
		{[]gosmtp.DSNNotify{failure}, true, false, false},
		{[]gosmtp.DSNNotify{delay}, false, true, false},
		{[]gosmtp.DSNNotify{success, failure, delay}, true, true, true},
	} {
		o := &gosmtp.RcptOptions{Notify: c.notify}
		if f, d, r := Wanted(Failed, o), Wanted(Delayed, o), Wanted(Relayed, o); f != c.failed || d != c.delayed || r != c.relayed || Wanted(KindUnknown, o) {
			t.Errorf("NOTIFY=%v: failed %v, delayed %v, relayed %v", c.notify, f, d, r)
		}
	}
}

func TestRefused(t *testing.T) {
	n := failed(t)
	n.Original.From = mail.Path{}
	if _, err := Write(testSettings, n); !errors.Is(err, ErrNullSender) {
		t.Errorf("a null sender: %v", err)
	}
	for name, spoil := range map[string]func(*Settings, *Notice){
		"kind": func(_ *Settings, n *Notice) { n.Kind = KindUnknown }, "recipients": func(_ *Settings, n *Notice) { n.Recipients = nil },
		"host": func(s *Settings, _ *Notice) { s.Host = "" },
	} {
		n, s := failed(t), testSettings
		spoil(&s, n)
		if _, err := Write(s, n); err == nil || errors.Is(err, ErrNullSender) {
			t.Errorf("%s is missing: %v", name, err)
		}
	}
}

func TestSubjectsAndTexts(t *testing.T) {
	for _, k := range []Kind{Failed, Delayed, Relayed} {
		n := failed(t)
		n.Kind = k
		m, err := Write(Settings{Host: "mx.example", Contact: "help@health.example"}, n)
		if err != nil {
			t.Fatal(err)
		}
		p := parse(t, m)
		if got, _ := new(mime.WordDecoder).DecodeHeader(p.header.Get("Subject")); got != subjects[k] {
			t.Errorf("%s: subject %q", k, got)
		}
		for _, l := range []wording{german, english} {
			if l.intro[k] == "" || !strings.Contains(strings.ReplaceAll(p.parts[0], "\r\n", "\n"), l.intro[k]) {
				t.Errorf("%s: text lacks %q", k, l.intro[k])
			}
		}
		if strings.Count(p.parts[0], "help@health.example") != 2 {
			t.Errorf("%s: the contact is not in both texts", k)
		}
	}
}

// FuzzWrite wants every notice to be one that can be read back, whatever stood in the
// original.
func FuzzWrite(f *testing.F) {
	f.Add([]byte(testHeader+"\r\nbody\r\n"), "id", "rcpt@x.example", "text", true, true)
	f.Add([]byte("no header\r\n\r\n--x\r\n"), "+0D+0A", `b\x{FC}@x`, "a\r\n\r\nb", false, true)
	f.Fuzz(func(t *testing.T, content []byte, envid, orcpt, text string, utf8, full bool) {
		content = bytes.ReplaceAll(bytes.ReplaceAll(content, []byte("\r"), nil), []byte("\n"), []byte("\r\n"))
		n := failed(t)
		n.Original.Options.UTF8, n.Original.Options.EnvelopeID = utf8, envid
		if full {
			n.Original.Options.Return = gosmtp.DSNReturnFull
		}
		n.Original.Size, n.Original.Content = int64(len(content)), bytes.NewReader(content)
		n.Recipients[0].Options.OriginalRecipientType, n.Recipients[0].Options.OriginalRecipient = "UTF-8", orcpt
		n.Recipients[0].Reply.Message = text
		m, err := Write(Settings{Host: "mx.example", OriginalBytes: 1000}, n)
		if err != nil {
			t.Fatal(err)
		}
		p := parse(t, m)
		if len(p.status) != 2 || p.status[1]["Action"] != "failed" {
			t.Errorf("status is %v", p.status)
		}
		if len(p.parts) == 3 && len(p.parts[2]) > 1000 {
			t.Errorf("%d bytes of the original returned", len(p.parts[2]))
		}
	})
}
