package smtp

import (
	"strconv"
	"strings"
)

// addressCases are about what may stand between the angle brackets.
func addressCases() []conformance {
	rcpt := func(name, line, code string) conformance {
		return conformance{name: name, steps: commands("MAIL FROM:<a@out.example>", line), want: outcome{codes: "220 250 250 " + code + " 221"}}
	}
	// to is a message to an address, which must arrive exactly as written.
	to := func(name, addr string) conformance {
		return conformance{
			name:  name,
			steps: []step{send(hello + "MAIL FROM:<a@out.example>\r\nRCPT TO:<" + addr + ">\r\nDATA\r\n"), await("354"), send("x\r\n.\r\n" + quit)},
			want:  outcome{"220 250 250 250 354 250 221", []string{"<a@out.example> <" + addr + "> x\r\n"}},
		}
	}
	sender := func(name, line, code string) conformance {
		return conformance{name: name, steps: commands(line), want: outcome{codes: "220 250 " + code + " 221"}}
	}
	return []conformance{
		to("T1 quoted local part with > and a parameter", `"victim@agency-b.example> ORCPT=rfc822;x"@agency-a.example`),
		to("T2 quoted local part with NOTIFY", `"victim@agency-b.example> NOTIFY=NEVER ORCPT="@agency-a.example`),
		to("T2 quoted local part with SIZE and <", `"victim@agency-b.example> SIZE=1 <"@agency-a.example`),
		{
			name:  "T2 quoted sender with AUTH and RET",
			steps: []step{send(hello + "MAIL FROM:<\"x@y> AUTH=<> RET=HDRS ENVID=x\"@out.example>\r\nRCPT TO:<b@in.example>\r\nDATA\r\n"), await("354"), send("x\r\n.\r\n" + quit)},
			want:  outcome{"220 250 250 250 354 250 221", []string{"<\"x@y> AUTH=<> RET=HDRS ENVID=x\"@out.example> <b@in.example> x\r\n"}},
		},
		to("T3 escaped quote", `"a b\" c"@agency-a.example`),
		to("T3 quoted @", `"a@b"@agency-a.example`),
		to("T3 quoted blank", `" "@agency-a.example`),
		{
			name:  "T4 source route is dropped",
			steps: []step{send(hello + "MAIL FROM:<a@out.example>\r\nRCPT TO:<@evil.example:user@agency-a.example>\r\nDATA\r\n"), await("354"), send("x\r\n.\r\n" + quit)},
			want:  outcome{"220 250 250 250 354 250 221", []string{"<a@out.example> <user@agency-a.example> x\r\n"}},
		},
		to("T4 percent stays a part of the local part", "user%agency-b.example@agency-a.example"),
		to("T4 bang stays a part of the local part", "agency-b.example!user@agency-a.example"),
		rcpt("T4 two @", "RCPT TO:<user@agency-b.example@agency-a.example>", "501"),
		rcpt("T4 trailing dot", "RCPT TO:<user@agency-a.example.>", "501"),
		rcpt("T5 NUL", "RCPT TO:<b\x00c@agency-a.example>", "501"),
		rcpt("T5 CR", "RCPT TO:<b\rc@agency-a.example>", "501"),
		rcpt("T5 ESC", "RCPT TO:<b\x1bc@agency-a.example>", "501"),
		rcpt("T5 DEL", "RCPT TO:<b\x7fc@agency-a.example>", "501"),
		rcpt("T5 8-bit without SMTPUTF8", "RCPT TO:<m\xc3\xbcller@agency-a.example>", "553"),
		rcpt("T5 8-bit that is no UTF-8", "RCPT TO:<m\xfcller@agency-a.example>", "501"),
		{
			name:  "T7 SMTPUTF8 address",
			steps: []step{send(hello + "MAIL FROM:<a@out.example> SMTPUTF8\r\nRCPT TO:<m\xc3\xbcller@in.example>\r\nDATA\r\n"), await("354"), send("x\r\n.\r\n" + quit)},
			want:  outcome{"220 250 250 250 354 250 221", []string{"<a@out.example> <m\xc3\xbcller@in.example> x\r\n"}},
		},
		rcpt("T6 postmaster", "RCPT TO:<postmaster>", "250"),
		rcpt("T6 Postmaster", "RCPT TO:<Postmaster>", "250"),
		rcpt("no domain", "RCPT TO:<root>", "501"),
		rcpt("null recipient", "RCPT TO:<>", "501"),
		rcpt("no brackets", "RCPT TO:b@in.example", "501"),
		rcpt("no closing bracket", "RCPT TO:<b@in.example", "501"),
		rcpt("bytes behind the bracket", "RCPT TO:<b@in.example>x", "501"),
		rcpt("blank behind the colon", "RCPT TO: <b@in.example>", "250"),
		rcpt("other keyword", "RCPT FROM:<b@in.example>", "501"),
		sender("null sender", "MAIL FROM:<>", "250"),
		sender("sender without domain", "MAIL FROM:<root>", "501"),
		sender("sender with control byte", "MAIL FROM:<a\x01@out.example>", "501"),
		sender("T13 format verbs in the sender", "MAIL FROM:<%s%n%0a${jndi}@out.example>", "250"),
	}
}

// parameterCases are about what stands behind the brackets.
func parameterCases() []conformance {
	mail := func(params, code string) conformance {
		return conformance{name: "MAIL " + params, limit: 1000, steps: commands("MAIL FROM:<a@out.example> " + params), want: outcome{codes: "220 250 " + code + " 221"}}
	}
	rcpt := func(params, code string) conformance {
		name := "RCPT " + params
		if len(name) > 60 {
			name = name[:30] + " of " + strconv.Itoa(len(params)) + " bytes"
		}
		return conformance{name: name, steps: commands("MAIL FROM:<a@out.example>", "RCPT TO:<b@in.example> "+params), want: outcome{codes: "220 250 250 " + code + " 221"}}
	}
	return []conformance{
		mail("SIZE=1000", "250"),
		mail("SIZE=1001", "552"),
		mail("SIZE=99999999999999999999", "552"),
		mail("SIZE=-1", "501"),
		mail("SIZE=", "501"),
		mail("SIZE=1 SIZE=1", "501"),
		mail("size=1 body=8bitmime", "250"),
		mail("BODY=7BIT", "250"),
		mail("BODY=BINARYMIME", "555"),
		mail("BODY=9BIT", "501"),
		mail("SMTPUTF8", "250"),
		mail("SMTPUTF8=1", "501"),
		mail("RET=HDRS ENVID=QQ314159", "250"),
		mail("RET=ALL", "501"),
		mail("ENVID=a+00b", "501"),
		mail("ENVID=a+2Bb", "250"),
		mail("ENVID="+strings.Repeat("x", 101), "501"),
		mail("AUTH=<>", "250"),
		mail("AUTH=a+40b", "250"),
		mail("AUTH=a+00b", "501"),
		mail("REQUIRETLS", "555"),
		mail("XSOMETHING=1", "555"),
		rcpt("NOTIFY=NEVER", "250"),
		rcpt("NOTIFY=SUCCESS,FAILURE,DELAY", "250"),
		rcpt("NOTIFY=NEVER,SUCCESS", "501"),
		rcpt("NOTIFY=SUCCESS,SUCCESS", "501"),
		rcpt("NOTIFY=", "501"),
		rcpt("ORCPT=rfc822;b+40in.example", "250"),
		rcpt("ORCPT=rfc822;q+0D+0ADATA", "501"),
		rcpt(`ORCPT=utf-8;q\x{0D}\x{0A}`, "501"),
		rcpt(`ORCPT=utf-8;m\x{FC}ller@in.example`, "250"),
		rcpt("ORCPT=rfc822;"+strings.Repeat("x", 3000), "501"),
		rcpt("ORCPT=rfc822;"+strings.Repeat("x", 10_000), "500"),
		rcpt("ORCPT=fax;x", "501"),
		rcpt("ORCPT=rfc822", "501"),
		rcpt("ORCPT=rfc822;a ORCPT=rfc822;b", "501"),
		rcpt("BY=120;R", "555"),
	}
}

// sessionCases are about sequence, verbs, TLS and floods.
func sessionCases() []conformance {
	many := func(n int, s string) string { return strings.Repeat(s, n) }
	return []conformance{
		{name: "MAIL before EHLO", steps: []step{send("MAIL FROM:<a@out.example>\r\n" + quit)}, want: outcome{codes: "220 503 221"}},
		{name: "HELO", steps: []step{send("HELO x\r\n" + envelope + "DATA\r\n"), await("354"), send("x\r\n.\r\n" + quit)}, want: one("x\r\n")},
		{name: "parameters after HELO", steps: []step{send("HELO x\r\nMAIL FROM:<a@out.example> SIZE=1\r\n" + quit)}, want: outcome{codes: "220 250 555 221"}},
		{name: "EHLO without a name", steps: []step{send("EHLO\r\n" + quit)}, want: outcome{codes: "220 501 221"}},
		{name: "EHLO with an address literal", steps: []step{send("EHLO [IPv6:::1]\r\n" + quit)}, want: outcome{codes: "220 250 221"}},
		{name: "T13 EHLO with control bytes", steps: []step{send("EHLO a\x0b\x1b[2J b\r\n" + quit)}, want: outcome{codes: "220 501 221"}},
		{name: "second MAIL", steps: commands("MAIL FROM:<a@out.example>", "MAIL FROM:<b@out.example>"), want: outcome{codes: "220 250 250 503 221"}},
		{name: "RCPT before MAIL", steps: commands("RCPT TO:<b@in.example>"), want: outcome{codes: "220 250 503 221"}},
		{name: "DATA before RCPT", steps: commands("MAIL FROM:<a@out.example>", "DATA"), want: outcome{codes: "220 250 250 503 221"}},
		{name: "DATA after refused recipients", steps: commands("MAIL FROM:<a@out.example>", "RCPT TO:<no@in.example>", "DATA"), want: outcome{codes: "220 250 250 550 554 221"}},
		{name: "DATA with an argument", steps: commands("MAIL FROM:<a@out.example>", "RCPT TO:<b@in.example>", "DATA x"), want: outcome{codes: "220 250 250 250 501 221"}},
		{name: "RSET forgets the transaction", steps: commands("MAIL FROM:<a@out.example>", "RCPT TO:<b@in.example>", "RSET", "DATA"), want: outcome{codes: "220 250 250 250 250 503 221"}},
		{name: "EHLO forgets the transaction", steps: commands("MAIL FROM:<a@out.example>", "RCPT TO:<b@in.example>", "EHLO y", "DATA"), want: outcome{codes: "220 250 250 250 250 503 221"}},
		{
			name: "second MAIL keeps the first's recipients only",
			steps: []step{
				send(hello + envelope + "MAIL FROM:<c@out.example>\r\nRCPT TO:<d@in.example>\r\nDATA\r\n"), await("354"), send("x\r\n.\r\n" + quit),
			},
			want: outcome{"220 250 250 250 503 250 354 250 221", []string{"<a@out.example> <b@in.example> <d@in.example> x\r\n"}},
		},
		{name: "T11 VRFY, EXPN, HELP, NOOP", steps: commands("VRFY root", "EXPN staff", "HELP", "NOOP x"), want: outcome{codes: "220 250 252 502 214 250 221"}},
		{name: "T11 ETRN, TURN, SEND", steps: commands("ETRN x", "TURN", "SEND FROM:<a@b>"), want: outcome{codes: "220 250 502 502 502 221"}},
		{name: "L4 AUTH is not to be had", steps: commands("AUTH PLAIN AGEAYg=="), want: outcome{codes: "220 250 502 221"}},
		{name: "L8 XCLIENT and XFORWARD from anyone", steps: commands("XCLIENT ADDR=127.0.0.1", "XFORWARD NAME=x"), want: outcome{codes: "220 250 502 502 221"}},
		{name: "unknown command, empty line", steps: commands("FOO", "", "MAILFROM:<a@b>"), want: outcome{codes: "220 250 500 500 500 221"}},
		{name: "LHLO on SMTP", steps: []step{send("LHLO x\r\n" + quit)}, want: outcome{codes: "220 500 221"}},
		{name: "LMTP: EHLO", lmtp: true, steps: []step{send("EHLO x\r\n" + quit)}, want: outcome{codes: "220 500 221"}},
		{
			name: "LMTP: an answer for each recipient", lmtp: true,
			steps: []step{
				send("LHLO x\r\n" + envelope + "RCPT TO:<no@in.example>\r\nRCPT TO:<c@in.example>\r\nDATA\r\n"), await("354"), send("x\r\n.\r\n" + quit),
			},
			want: outcome{"220 250 250 250 550 250 354 250 250 221", []string{"<a@out.example> <b@in.example> <c@in.example> x\r\n"}},
		},
		{name: "LMTP: DATA after refused recipients", lmtp: true, steps: []step{send("LHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<no@in.example>\r\nDATA\r\n" + quit)}, want: outcome{codes: "220 250 250 550 503 221"}},
		{
			name: "LMTP: BDAT", lmtp: true,
			steps: []step{send("LHLO x\r\n" + envelope + "RCPT TO:<c@in.example>\r\nBDAT 3\r\na\r\nBDAT 3 LAST\r\nb\r\n" + quit)},
			want:  outcome{"220 250 250 250 250 250 250 250 221", []string{"<a@out.example> <b@in.example> <c@in.example> a\r\nb\r\n"}},
		},
		{name: "STARTTLS with an argument", tls: true, steps: commands("STARTTLS x"), want: outcome{codes: "220 250 501 221"}},
		{name: "STARTTLSXYZ", tls: true, steps: commands("STARTTLSXYZ"), want: outcome{codes: "220 250 500 221"}},
		{name: "STARTTLS without a certificate", steps: commands("STARTTLS"), want: outcome{codes: "220 250 502 221"}},
		{
			name: "L1 command behind STARTTLS", tls: true,
			steps: []step{send(hello + "STARTTLS\r\nMAIL FROM:<inj@out.example>\r\n"), stay},
			want:  outcome{codes: "220 250 503"},
		},
		{
			name: "L3 state is forgotten with TLS", tls: true,
			steps: []step{
				send(hello), await("250"), send("STARTTLS\r\n"), await("220"), handshake,
				send("MAIL FROM:<a@out.example>\r\n" + hello + "STARTTLS\r\n"),
			},
			want: outcome{codes: "220 250 220 503 250 503"},
		},
		{
			name: "STARTTLS within a transaction", tls: true,
			steps: commands("MAIL FROM:<a@out.example>", "STARTTLS"),
			want:  outcome{codes: "220 250 250 503 221"},
		},
		{
			name: "plain text instead of a handshake", tls: true,
			steps: []step{send(hello), await("250"), send("STARTTLS\r\n"), await("220"), send("MAIL FROM:<a@out.example>\r\n"), stay},
			want:  outcome{codes: "220 250 220"},
		},
		{
			name:  "Q3 flood of recipients",
			steps: []step{send(hello + "MAIL FROM:<a@out.example>\r\n" + many(150, "RCPT TO:<b@in.example>\r\n") + quit)},
			want:  outcome{codes: "220 250 250 250x100 452x50 221"},
		},
		{name: "Q4 flood of NOOP", steps: []step{send(hello + many(150, "NOOP\r\n")), stay}, want: outcome{codes: "220 250 250x99 421"}},
		{name: "Q4 flood of nonsense", steps: []step{send(hello + many(50, "FOO\r\n")), stay}, want: outcome{codes: "220 250 500x20 421"}},
		{name: "Q5 flood of empty chunks", steps: []step{send(hello + envelope + many(200, "BDAT 0\r\n")), stay}, want: outcome{codes: "220 250 250 250 250x100 421"}},
	}
}
