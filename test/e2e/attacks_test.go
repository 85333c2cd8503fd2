package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"mailcutover/internal/platformtest"
)

// evil is what an attacker wants to be taken for commands; its recipient exists.
const evil = "MAIL FROM:<evil@out.example>\r\nRCPT TO:<victim@agency-b.example>\r\nDATA\r\nSubject: evil\r\n\r\nevil\r\n.\r\n"

// smuggling are the ends of a message that some server somewhere takes for one.
var smuggling = []string{
	"\n.\n", "\n.\r", "\r.\n", "\r.\r", "\n.\r\n", "\r.\r\n", "\r\n\x00.\r\n",
	"\r\n.\n", "\r\n.\r", "\r\n.\r\r\n", "\r\r\n.\r\r\n", "\r\r\n.\r\n",
}

// attacked is a node with a table that attackers know, in front of a strict platform, of
// one that takes LF . LF for an end, and of one that speaks LMTP.
type attacked struct {
	*node
	platforms map[string]*platformtest.Platform
	canonical map[string]bool // every address of the table
}

func startAttacked(t *testing.T) attacked {
	t.Helper()
	a := attacked{
		platforms: map[string]*platformtest.Platform{
			"exchange": startPlatform(t, platformtest.Options{}),
			"fooled":   startPlatform(t, platformtest.Options{BareLFEndsData: true}),
			"ox":       startPlatform(t, platformtest.Options{LMTP: true, BareLFEndsData: true}),
		},
		canonical: make(map[string]bool),
	}
	a.node = startNode(t, setup{
		listener: "limits: {message_bytes: 2MiB, errors: 100}",
		platforms: []platform{
			{id: "exchange", addr: a.platforms["exchange"].Addr()}, {id: "fooled", addr: a.platforms["fooled"].Addr()},
			{id: "ox", addr: a.platforms["ox"].Addr(), lmtp: true},
		},
	})
	add := func(id, source, target string, locals ...string) {
		a.addAgencyOn(id, source, target, locals...)
		for _, local := range locals {
			a.canonical[strings.ReplaceAll(local, `""`, `"`)+"@"+id+".example"] = true
		}
	}
	add("agency-a", "exchange", "ox", "user", "b")
	add("agency-b", "exchange", "ox", "victim")
	add("fooled", "fooled", "ox", "user", "victim")
	add("ox", "ox", "exchange", "user", "victim")
	add("unmoved", "exchange", "ox", "postmaster")
	return a
}

// judge looks at what was on the platforms' wires since the node started: nothing evil,
// at most one MAIL for each sender, no bare line ends, and no address but the table's.
func (a attacked) judge(t *testing.T) (stored int) {
	t.Helper()
	for name, p := range a.platforms {
		mails := make(map[string]int)
		for _, c := range p.Commands() {
			switch {
			case c.Verb == "MAIL":
				mails[c.Line]++
				if strings.Contains(c.Line, "evil@out.example") || mails[c.Line] > 1 {
					t.Errorf("%s: %q", name, c.Line)
				}
			case c.Verb == "RCPT":
				path, params, _ := strings.Cut(strings.TrimPrefix(c.Line, "RCPT TO:<"), ">")
				if !a.canonical[path] {
					t.Errorf("%s: %q is not the table's", name, c.Line)
				}
				if strings.Contains(params, "NEVER") || strings.Contains(params, "<") {
					t.Errorf("%s: parameters of %q", name, c.Line)
				}
			case c.Reply != "" && c.Reply[0] == '5':
				t.Errorf("%s: the platform refused %q: %s", name, c.Line, c.Reply)
			}
		}
		for _, tx := range p.Stored() {
			if cr, lf := tx.BareLineEnds(); cr+lf != 0 {
				t.Errorf("%s: message of %s has %d bare CR and %d bare LF: %.300q", name, tx.From, cr, lf, tx.Raw)
			}
			stored++
		}
	}
	return stored
}

// Two systems that disagree about where a message ends let a sender smuggle a second one
// past the first: here they can't disagree, whatever the platform believes in.
func TestNothingIsSmuggled(t *testing.T) {
	t.Parallel()
	a := startAttacked(t)
	n := 0
	dialogue := func(rcpt, what, before string, writes ...string) {
		t.Helper()
		n++
		w, err := dial(a.smtp)
		if err != nil {
			t.Fatal(err)
		}
		defer w.conn.Close()
		w.want(t, "EHLO out.example", "250")
		w.want(t, fmt.Sprintf("MAIL FROM:<s%d@out.example>", n), "250 ")
		w.want(t, "RCPT TO:<"+rcpt+">", "250 ")
		if before != "" {
			w.want(t, before, "354 ")
		}
		for _, bytes := range writes {
			if err := w.send(bytes); err != nil { // after a malformed end the listener hangs up
				break
			}
		}
		_ = w.send("QUIT\r\n")
		answers := w.rest()
		if len(answers) == 0 || answers[0][0] == '3' {
			t.Errorf("%s for %s: answers %q", what, rcpt, answers)
		}
	}
	for i, sequence := range smuggling {
		content := "Subject: good\r\n\r\nbody" + sequence + evil + "\r\n.\r\n"
		for _, rcpt := range []string{"user@agency-a.example", "user@fooled.example", "user@ox.example"} {
			dialogue(rcpt, fmt.Sprintf("S%d", i+1), "DATA", content)
			// The same by BDAT, with the chunk cut at each position within the sequence.
			at := strings.Index(content, sequence)
			for cut := range len(sequence) + 1 {
				first, second := content[:at+cut], content[at+cut:]
				dialogue(rcpt, fmt.Sprintf("S13 of S%d cut at %d", i+1, cut), "",
					fmt.Sprintf("BDAT %d\r\n%sBDAT %d LAST\r\n%s", len(first), first, len(second), second))
			}
		}
	}
	// A byte at a time, as each its own segment.
	for _, content := range []string{".\r\n", "..\r\n.\r\n", ".x\r\n.\r\n", "a\r\n..\r\n.\r\n", "a\n.\nb\r\n.\r\n"} {
		dialogue("user@fooled.example", "S15", "DATA", strings.Split(content, "")...)
	}
	if stored := a.judge(t); stored < n {
		t.Errorf("%d messages stored of %d", stored, n)
	} else {
		t.Logf("%d attempts", n)
	}
	for _, tx := range a.platforms["fooled"].Stored() {
		if strings.Contains(string(tx.Body()), "evil") && !strings.Contains(string(tx.Body()), "RCPT TO:<victim@agency-b.example>") {
			t.Errorf("a message was cut: %q", tx.Body())
		}
	}
}

// The check above can fail: without us in between, the second message arrives.
func TestSmugglingWorksWithoutUs(t *testing.T) {
	t.Parallel()
	p := startPlatform(t, platformtest.Options{BareLFEndsData: true})
	w := mustDial(t, p.Addr(), "EHLO")
	w.envelope(t, "user@fooled.example")
	w.want(t, "DATA", "354 ")
	if err := w.send("Subject: good\r\n\r\nbody\n.\n" + evil + "QUIT\r\n"); err != nil {
		t.Fatal(err)
	}
	w.rest()
	if stored := p.Stored(); len(stored) != 2 || stored[1].From != "evil@out.example" {
		t.Errorf("%+v", stored)
	}
}

// Framing beyond the end of a message: pipelining where it isn't allowed, sizes, lines.
func TestFraming(t *testing.T) {
	t.Parallel()
	a := startAttacked(t)
	n := 0
	for _, c := range []struct {
		name   string
		writes []string // each behind the answer to the one before
		want   string   // first digits of all answers after EHLO
	}{
		{"S14 over the size limit, the end is found", []string{"MAIL FROM:<%[1]s>\r\nRCPT TO:<user@agency-a.example>\r\nDATA\r\n", strings.Repeat("0123456789abcde\r\n", 130_000) + "\n.\r\n" + evil + "NOOP\r\nQUIT\r\n"}, "250 250 354 552 250 221"},
		{"S17 bare LF ends no command", []string{"MAIL FROM:<%[1]s>\nRCPT TO:<victim@agency-b.example>\nDATA\n\r\nQUIT\r\n"}, "500 500 500 500 221"},
		{"S18 message behind DATA", []string{"MAIL FROM:<%[1]s>\r\nRCPT TO:<user@agency-a.example>\r\nDATA\r\nSubject: early\r\n\r\n.\r\n" + evil}, "250 250 554"},
		{"S18 second message behind the dot is a second message", []string{"MAIL FROM:<%[1]s>\r\nRCPT TO:<user@agency-a.example>\r\nDATA\r\n", "one\r\n.\r\nMAIL FROM:<%[2]s>\r\nRCPT TO:<user@agency-a.example>\r\nDATA\r\n", "two\r\n.\r\nQUIT\r\n"}, "250 250 354 250 250 250 354 250 221"},
		{"S20 line of 1 MB", []string{"MAIL FROM:<%[1]s>\r\nRCPT TO:<user@fooled.example>\r\nDATA\r\n", strings.Repeat("x", 1<<20) + "\r\n.\r\nQUIT\r\n"}, "250 250 354 250 221"},
		{"S21 command of 5 KB", []string{"NOOP " + strings.Repeat("x", 5000) + "\r\nMAIL FROM:<%[1]s>\r\nQUIT\r\n"}, "500 250 221"},
		{"Q5 BDAT beyond all sizes", []string{"MAIL FROM:<%[1]s>\r\nRCPT TO:<user@agency-a.example>\r\nBDAT 9223372036854775808 LAST\r\n" + evil}, "250 250 501"},
		{"connection ends within DATA", []string{"MAIL FROM:<%[1]s>\r\nRCPT TO:<user@agency-a.example>\r\nDATA\r\n", "Subject: half\r\n\r\nhalf\r\n"}, "250 250 354"},
		{"connection ends within a chunk", []string{"MAIL FROM:<%[1]s>\r\nRCPT TO:<user@agency-a.example>\r\nBDAT 100 LAST\r\nhalf\r\n"}, "250 250"},
	} {
		w := mustDial(t, a.smtp, "EHLO")
		var codes []string
		for i, text := range c.writes {
			text = strings.NewReplacer("%[1]s", fmt.Sprintf("f%d@out.example", n), "%[2]s", fmt.Sprintf("f%d-2@out.example", n)).Replace(text)
			_ = w.send(text) // a listener that hangs up is seen below
			if i == len(c.writes)-1 {
				if tcp, ok := w.conn.(interface{ CloseWrite() error }); ok {
					_ = tcp.CloseWrite()
				}
				break
			}
			for {
				got, err := w.reply()
				if err != nil {
					break
				}
				codes = append(codes, got[:3])
				if got[0] == '3' {
					break
				}
			}
		}
		n++
		for _, answer := range w.rest() {
			codes = append(codes, answer[:3])
		}
		if got := strings.Join(codes, " "); !strings.HasPrefix(got, c.want) {
			t.Errorf("%s: answers %s, want %s", c.name, got, c.want)
		}
	}
	if stored := a.judge(t); stored != 3 {
		t.Errorf("%d messages stored, want 3", stored)
	}
}

// Whatever stands in an address or a parameter, a platform gets the table's address or
// nothing, and the log stays one record for each line.
func TestAddressesReachNoOtherTenant(t *testing.T) {
	t.Parallel()
	a := startAttacked(t)
	const taken, refused = "2", "45"
	for _, c := range []struct{ line, want string }{
		// T1, T2: what looks like a parameter in a quoted local part.
		{`RCPT TO:<"victim@agency-b.example> ORCPT=rfc822;x"@agency-a.example>`, refused},
		{`RCPT TO:<"victim@agency-b.example> NOTIFY=NEVER ORCPT=rfc822;x"@agency-a.example>`, refused},
		{`RCPT TO:<"victim@agency-b.example> SIZE=1 <"@agency-a.example>`, refused},
		{`RCPT TO:<"victim@agency-b.example>\r\nRCPT TO:<x"@agency-a.example>`, refused},
		// T3: quoting that means the same, or something else.
		{`RCPT TO:<"user"@agency-a.example>`, taken},
		{`RCPT TO:<"us\er"@agency-a.example>`, taken},
		{`RCPT TO:<"a b\" c"@agency-a.example>`, refused},
		{`RCPT TO:<"victim@agency-b.example"@agency-a.example>`, refused},
		{`RCPT TO:<" "@agency-a.example>`, refused},
		// T4: routes.
		{`RCPT TO:<@evil.example:user@agency-a.example>`, taken},
		{`RCPT TO:<user%agency-b.example@agency-a.example>`, refused},
		{`RCPT TO:<agency-b.example!user@agency-a.example>`, refused},
		{`RCPT TO:<user@agency-b.example@agency-a.example>`, refused},
		{`RCPT TO:<user@[127.0.0.1]>`, refused},
		{`RCPT TO:<user@agency-a.example.>`, refused},
		// T5: bytes that don't belong there.
		{"RCPT TO:<us\x00er@agency-a.example>", refused},
		{"RCPT TO:<us\rer@agency-a.example>", refused},
		{"RCPT TO:<us\x1ber@agency-a.example>", refused},
		{"RCPT TO:<us\x7fer@agency-a.example>", refused},
		{"RCPT TO:<m\xc3\xbcller@agency-a.example>", refused},
		{"RCPT TO:<m\xfcller@agency-a.example>", refused},
		// T6, T7.
		{`RCPT TO:<postmaster>`, taken},
		{`RCPT TO:<USER@Agency-A.EXAMPLE>`, taken},
		{"RCPT TO:<user\xef\xbc\xa0agency-a.example>", refused},
		{"RCPT TO:<u\xe2\x80\x8dser@agency-a.example>", refused},
		// T8: parameters that carry line ends, and some that are right.
		{`RCPT TO:<user@agency-a.example> ORCPT=rfc822;q+0D+0ADATA`, refused},
		{`RCPT TO:<user@agency-a.example> ORCPT=utf-8;q\x{0D}\x{0A}`, refused},
		{`RCPT TO:<user@agency-a.example> NOTIFY=NEVER,SUCCESS`, refused},
		{`RCPT TO:<user@agency-a.example> ORCPT=rfc822;` + strings.Repeat("x", 3000), refused},
		{`RCPT TO:<user@agency-a.example> NOTIFY=SUCCESS ORCPT=rfc822;old+2Bname@agency-a.example`, taken},
		{`MAIL FROM:<"x@y> AUTH=<> RET=HDRS ENVID=x"@out.example> ENVID=a+00b`, refused},
		{`MAIL FROM:<a@out.example> RET=ALL ENVID=a+0Db`, refused},
		// T11, T13: nothing to be learnt, nothing to be broken.
		{"VRFY user", taken},
		{"EXPN agency-a", refused},
		{"ETRN agency-a.example", refused},
		{"XCLIENT ADDR=192.0.2.1", refused},
		{"EHLO a\x0b\x1b[2J b", refused},
		{"EHLO " + strings.Repeat("x", 10<<10), refused},
		{"EHLO {\"level\":\"forged\"}", taken},
		{"MAIL FROM:<%s%n%0a${jndi:ldap://x}@out.example>", "25"},
	} {
		for _, addr := range []string{a.smtp, a.lmtp} {
			hello := map[string]string{a.smtp: "EHLO", a.lmtp: "LHLO"}[addr]
			w := mustDial(t, addr, hello)
			if strings.HasPrefix(c.line, "RCPT") {
				w.want(t, "MAIL FROM:<>", "250 ")
			}
			line := strings.Replace(c.line, "EHLO", hello, 1)
			got, err := w.ask(line)
			if err != nil || !strings.Contains(c.want, got[:1]) {
				t.Errorf("%.200q: %q, %v", line, got, err)
			}
			if strings.ContainsAny(got, "\x00\x1b\x0b") {
				t.Errorf("%.200q: the answer repeats control bytes: %q", line, got)
			}
			w.want(t, "RSET", "250 ")
			w.conn.Close()
		}
	}
	// T14: headers don't route, and T2 in the sender is passed on as it stands.
	w := mustDial(t, a.smtp, "EHLO")
	w.want(t, `MAIL FROM:<"x@y> AUTH=<> RET=HDRS ENVID=x"@out.example>`, "250 ")
	w.want(t, "RCPT TO:<user@agency-a.example>", "250 ")
	if got := w.message(t, "Received: from x by node.example.org (mailcutover mailcutover) with SMTP id 1\r\nTo: victim@agency-b.example\r\nBcc: victim@agency-b.example\r\nX-Mailcutover-Agency: agency-b\r\nReturn-Path: <evil@out.example>\r\n\r\nx\r\n"); !strings.HasPrefix(got, "250 ") {
		t.Errorf("forged headers: %s", got)
	}
	stored := a.platforms["exchange"].Stored()
	if len(stored) != 1 || stored[0].From != `"x@y> AUTH=<> RET=HDRS ENVID=x"@out.example` || len(stored[0].Rcpts) != 1 || stored[0].Rcpts[0].Path != "user@agency-a.example" {
		t.Errorf("exchange has %+v", stored)
	}
	for name, p := range a.platforms {
		for _, c := range p.Commands() {
			if path, _, _ := strings.Cut(strings.TrimPrefix(c.Line, "RCPT TO:<"), ">"); c.Verb == "RCPT" && !a.canonical[path] {
				t.Errorf("%s: %q is not the table's", name, c.Line)
			}
		}
	}
	for line := range strings.Lines(a.Output()) {
		if !strings.HasSuffix(line, "\n") {
			continue // the node runs: the last one may be under way
		}
		var record map[string]any
		if err := json.Unmarshal([]byte(line), &record); err != nil || record["level"] == "forged" {
			t.Errorf("log: %q: %v", line, err)
		}
	}
}

// One message for a hundred recipients of seven agencies on both platforms: each gets it
// once, on the right platform, and no platform learns of the others' recipients.
func TestAHundredRecipients(t *testing.T) {
	t.Parallel()
	n, exchange, ox := startPair(t, setup{})
	home := make(map[string]string)
	var rcpts []string
	for i := range 7 {
		id := fmt.Sprintf("agency%d", i)
		var locals []string
		for j := range 15 {
			locals = append(locals, fmt.Sprintf("m%d", j))
		}
		platform := "exchange"
		n.addAgency(id, locals...)
		if i%2 == 1 {
			n.mustSwitch("cutover", id)
			platform = "ox"
		}
		for _, local := range locals {
			home[local+"@"+id+".example"] = platform
		}
	}
	for j := range 15 {
		for i := range 7 {
			rcpts = append(rcpts, fmt.Sprintf("m%d@agency%d.example", j, i))
		}
	}
	// By LMTP with an answer for each, and by SMTP with one for all. Those for the platform
	// of the first recipient are streamed, the others go by the spool.
	for id, addr := range []string{1: n.lmtp, 2: n.smtp} {
		if addr == "" {
			continue
		}
		w := mustDial(t, addr, map[string]string{n.lmtp: "LHLO", n.smtp: "EHLO"}[addr])
		var lines strings.Builder
		lines.WriteString("MAIL FROM:<sender@out.example>\r\n")
		for _, rcpt := range rcpts {
			lines.WriteString("RCPT TO:<" + rcpt + ">\r\n")
		}
		if err := w.send(lines.String()); err != nil {
			t.Fatal(err)
		}
		for range 1 + len(rcpts) {
			w.want(t, "", "250 ")
		}
		w.want(t, "DATA", "354 ")
		if err := w.send(withID(id) + ".\r\n"); err != nil {
			t.Fatal(err)
		}
		w.want(t, "", "250 ")
		if addr == n.lmtp {
			for range rcpts[1:] {
				w.want(t, "", "250 ")
			}
		}
	}
	platforms := map[string]*platformtest.Platform{"exchange": exchange, "ox": ox}
	var copies map[delivery][]copied
	waitFor(t, "the spool to deliver the others", func() bool {
		copies = copiesAt(platforms)
		return len(copies) >= 2*len(rcpts)
	})
	n.Stop() // nothing comes behind it
	copies = copiesAt(platforms)
	for _, rcpt := range rcpts {
		for id := 1; id <= 2; id++ {
			if at := copies[delivery{id, rcpt}]; len(at) != 1 || at[0].platform != home[rcpt] {
				t.Errorf("message %d for %s: %v, want one copy on %s", id, rcpt, at, home[rcpt])
			}
		}
	}
	for name, p := range platforms {
		transactions := make(map[int]int)
		for _, tx := range p.Stored() {
			transactions[idOf(tx.Body())]++
		}
		for _, c := range p.Commands() {
			path, _, _ := strings.Cut(strings.TrimPrefix(c.Line, "RCPT TO:<"), ">")
			if c.Verb == "RCPT" && home[path] != name {
				t.Errorf("%s was asked for %s", name, path)
			}
		}
		t.Logf("%s: %d recipients in %v transactions by message", name, len(rcpts), transactions)
	}
}
