package attack

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
)

// spoken is what a client says behind TLS before it has logged in, and what comes back.
type spoken struct {
	name string
	id   string // of an upgrade
	say  string
	want []string // each is in the answer, in this order
	not  string   // is not
}

// victims tries a login as somebody else, by IMAP.
const victims = "v LOGIN victim@exchange.example pw\r\n"

// imapLines are cases of one IMAP line, whose answer begins with one of two words.
func imapLines(name, want string, lines ...string) (cases []spoken) {
	for _, line := range lines {
		cases = append(cases, spoken{name: name, id: "imap", say: line + "\r\nz LOGOUT\r\n", want: []string{want}, not: "OK Logged in"})
	}
	return cases
}

func sasl(parts ...string) string {
	return base64.StdEncoding.EncodeToString([]byte(strings.Join(parts, "\x00")))
}

// logins holds the listeners for logins to what comes before one.
func logins(t *testing.T, f *front) {
	const anna = "anna@exchange.example"
	cases := []spoken{
		{"M2 a literal too long is skipped or the end", "imap", fmt.Sprintf("a LOGIN {%d+}\r\n%s\r\nz LOGOUT\r\n", 600*len("\r\n"+victims), strings.Repeat("\r\n"+victims, 600)), []string{"a NO [TOOBIG]", "z OK"}, "v OK"},
		{"M2 a literal of 4 GB", "imap", "a LOGIN {4294967295+}\r\n" + strings.Repeat(victims, 100), []string{"BYE"}, "v OK"},
		{"M3 a command in a literal", "imap", "a LOGIN {38+}\r\n\r\n" + victims + " {2+}\r\npw\r\nz LOGOUT\r\n", []string{"a "}, "v OK"},
		{"M4 literals in ID", "imap", "A1 ID (\"name\" {23+}\r\nMicrosoft.Exchange.Imap \"version\" {6+}\r\n16.0.0)\r\nA2 LOGIN " + anna + " pw\r\nA3 LOGOUT\r\n", []string{"A1 OK", "A2 OK", "A3 OK"}, "A1 BAD"},
		{"M5 ID with 100,000 parameters", "imap", "a ID (" + strings.Repeat(`"k" "v" `, 100_000) + ")\r\nz LOGOUT\r\n", []string{"BYE"}, "a OK"},
		{"M5 100,000 brackets", "imap", "a " + strings.Repeat("(", 100_000) + "\r\nz LOGOUT\r\n", []string{"BYE"}, "a OK"},
		{"M6 NUL in a literal", "imap", "a LOGIN {7+}\r\nvic\x00tim pw\r\nz LOGOUT\r\n", []string{"a BAD"}, "a OK"},
		{"M7 a tag of a megabyte", "imap", strings.Repeat("t", 1<<20) + " NOOP\r\nz LOGOUT\r\n", []string{"BYE"}, "t OK"},
		{"M7 nonsense is counted", "imap", strings.Repeat("a X\r\n", 100) + victims, []string{"a BAD", "BYE"}, "v OK"},
		{"M8 pipelined behind a login", "imap", "a LOGIN " + anna + " pw\r\nb SELECT INBOX\r\nc NOOP\r\nd LOGOUT\r\n", []string{"a OK", "b OK", "c OK", "d OK"}, "BAD"},
		{"M9 pipelined behind a wrong password", "imap", "a LOGIN " + anna + " wrong\r\nb SELECT canary-folder\r\nc APPEND canary-folder {10+}\r\n" + victims[:10] + "\r\nz LOGOUT\r\n", []string{"a NO [AUTHENTICATIONFAILED]", "b BAD", "c BAD"}, "OK [CAPABILITY IMAP4rev1 IDLE]"},
		{"M10 cancelled", "imap", "a AUTHENTICATE PLAIN\r\n*\r\nz LOGOUT\r\n", []string{"+ ", "a BAD", "z OK"}, "a OK"},
		{"M10 an answer of 64 KB", "imap", "a AUTHENTICATE PLAIN\r\n" + strings.Repeat("A", 64<<10) + "\r\nz LOGOUT\r\n", []string{"+ ", "a "}, "a OK"},
		{"M11 before the login", "imap", "a CAPABILITY\r\nb COMPRESS DEFLATE\r\nc UNAUTHENTICATE\r\nz LOGOUT\r\n", []string{"a OK", "b BAD", "c BAD"}, "COMPRESS="},

		{"L8 ID doesn't vouch for anybody", "imap", "a ID (\"x-originating-ip\" \"canary-address\" \"x-session-id\" \"canary-session\")\r\nb LOGIN " + anna + " pw\r\nz LOGOUT\r\n", []string{"a OK", "b OK"}, "a BAD"},
		{"L8 XCLIENT", "submission", "XCLIENT ADDR=192.0.2.1 LOGIN=victim@exchange.example\r\nXCLIENT FORWARD=canary\r\nQUIT\r\n", []string{"5", "5", "221"}, "235"},
		{"mail without a login", "submission", "MAIL FROM:<victim@exchange.example>\r\nRCPT TO:<x@out.example>\r\nDATA\r\nBDAT 20 LAST\r\nMAIL FROM:<victim>\r\nQUIT\r\n", []string{"530", "221"}, "250"},
		{"a chunk without a login", "submission", "BDAT 99999999999 LAST\r\n" + strings.Repeat("MAIL FROM:<victim@exchange.example>\r\n", 10), []string{"5"}, "250"},
		{"bare LF", "submission", "NOOP\nAUTH PLAIN " + plain("victim@exchange.example", "pw") + "\n\r\nQUIT\r\n", []string{"50"}, "235"},
		{"an initial response of 12 KB", "submission", "AUTH PLAIN " + strings.Repeat("A", 12<<10) + "\r\nQUIT\r\n", []string{"50"}, "235"},
		{"a command of a megabyte", "submission", "NOOP " + strings.Repeat("x", 1<<20) + "\r\nQUIT\r\n", []string{"500"}, "235"},

		{"APOP", "pop3", "APOP victim@exchange.example c4c9334bac560ecc979e58001b3e22fb\r\nQUIT\r\n", []string{"-ERR", "+OK"}, "logged in"},
		{"commands before the login", "pop3", "STAT\r\nRETR 1\r\nDELE 1\r\nUSER " + anna + "\r\nSTAT\r\nQUIT\r\n", []string{"-ERR", "-ERR", "-ERR", "+OK", "-ERR", "+OK"}, "logged in"},
		{"NUL and bare LF", "pop3", "USER " + anna + "\x00victim@exchange.example\r\n", []string{"-ERR"}, "logged in"},
		{"two commands in a line", "pop3", "USER " + anna + "\nUSER victim@exchange.example\r\nPASS pw\r\n", []string{"-ERR"}, "logged in"},
		{"a password of a megabyte", "pop3", "USER " + anna + "\r\nPASS " + strings.Repeat("x", 1<<20) + "\r\n", []string{"-ERR"}, "logged in"},
		{"pipelined behind a wrong password", "pop3", "USER " + anna + "\r\nPASS wrong\r\nDELE canary\r\nQUIT\r\n", []string{"-ERR", "-ERR", "+OK"}, "logged in"},

		{"a literal that asks for leave", "sieve", "AUTHENTICATE {5}\r\n", []string{"BYE"}, "welcome"},
		{"a literal too long", "sieve", "PUTSCRIPT \"canary\" {99999999999+}\r\n" + strings.Repeat("AUTHENTICATE \"PLAIN\" \""+plain("victim@exchange.example", "pw")+"\"\r\n", 100), []string{"BYE"}, "welcome"},
		{"a command in a literal", "sieve", "PUTSCRIPT \"canary\" {30+}\r\nDELETESCRIPT \"canary-script\"\r\n\r\nLOGOUT\r\n", []string{"NO", "OK"}, "welcome"},
		{"a script before the login", "sieve", "PUTSCRIPT \"canary\" {5+}\r\nkeep;\r\nSETACTIVE \"canary\"\r\nLOGOUT\r\n", []string{"NO", "NO", "OK"}, "welcome"},
		{"NUL", "sieve", "NOOP \"\x00\"\r\n", []string{"BYE"}, "welcome"},
	}
	cases = append(cases, imapLines("M1 sizes of literals", "a ",
		"a LOGIN {400000000}", "a LOGIN {2147483647}", "a LOGIN {2147483648}", "a LOGIN {4294967296}", "a LOGIN {-1}", "a LOGIN {}", "a LOGIN {9999999999999999999}", "a LOGIN {0x10}", "a LOGIN {1 }", "a LOGIN ~{5}", "a LOGIN x {400000000}")...)
	cases = append(cases, imapLines("M6 NUL", "BAD", "a LOGIN \"vic\x00tim\" pw", `a LOGIN "vic\0tim" pw`, "a\x00 LOGIN x pw", "a NOOP\x00")...)
	cases = append(cases, imapLines("M7 tags", "BAD", " NOOP", "* NOOP", "+ NOOP", "a{3}", "a{3+} NOOP", "\x80\xff NOOP", "", "a", "a  NOOP", "(a NOOP")...)
	// L9: messages of SASL that could be read in two ways, by each protocol.
	for _, message := range []string{
		sasl("victim@exchange.example", anna, "pw"), sasl("", anna, "pw", ""), sasl("", "victim@exchange.example"), sasl("victim@exchange.example"), sasl("", "", "pw"), sasl("", anna, ""),
		sasl("", "victim@exchange.example\xff", "pw"), sasl("", "victim@exchange.example\r\nx", "pw"), "=", "====", "A", "AG\tFubmE", sasl("", anna, "pw")[:9] + " " + sasl("", anna, "pw")[9:], sasl("", anna, "pw") + "=", strings.TrimRight(sasl("", anna, "pw."), "="),
	} {
		cases = append(cases,
			spoken{"L9 " + message, "imap", "a AUTHENTICATE PLAIN " + message + "\r\nz LOGOUT\r\n", []string{"a "}, "a OK"},
			spoken{"L9 " + message, "imap", "a AUTHENTICATE PLAIN\r\n" + message + "\r\nz LOGOUT\r\n", []string{"+ ", "a "}, "a OK"},
			spoken{"L9 " + message, "submission", "AUTH PLAIN " + message + "\r\nQUIT\r\n", []string{"5"}, "235"},
			spoken{"L9 " + message, "pop3", "AUTH PLAIN " + message + "\r\nQUIT\r\n", []string{"-ERR"}, "logged in"},
			spoken{"L9 " + message, "sieve", "AUTHENTICATE \"PLAIN\" \"" + message + "\"\r\nLOGOUT\r\n", []string{"NO"}, "welcome"},
		)
	}
	for _, c := range cases {
		at := 0
		for upgrades[at].id != c.id {
			at++
		}
		w := f.upgraded(t, upgrades[at])
		_ = w.send(c.say) // a listener that hangs up meanwhile is seen below
		said, ended := w.rest()
		w.conn.Close()
		if !ended {
			t.Errorf("%s (%s): the connection stays, with %.300q", c.name, c.id, said)
		}
		rest := said
		for _, want := range c.want {
			i := strings.Index(rest, want)
			if i < 0 {
				t.Errorf("%s (%s): answered %.300q, want %q", c.name, c.id, said, c.want)
				break
			}
			rest = rest[i+len(want):]
		}
		if strings.Contains(said, c.not) {
			t.Errorf("%s (%s): answered %.300q, with %q", c.name, c.id, said, c.not)
		}
	}
}

// names holds to it that a name means one mailbox or nobody: L10, L11.
func names(t *testing.T, f *front) {
	for _, name := range []string{
		`victim@exchange.example*anna@exchange.example`, `anna@exchange.example*victim@exchange.example`, `anna@exchange.example%victim`, `anna%victim@exchange.example`,
		`exchange.example\victim`, `EXCHANGE\anna\victim`, `anna@exchange.example/victim@exchange.example`, `anna@exchange.example\victim`, `anna@exchange.example `, ` anna@exchange.example`, "anna@exchange.example\t",
		`*)(uid=*))(|(uid=*`, `*`, `anna@exchange.example)(objectClass=*`, `\00`, `)`, `anna@*`, `../../etc/passwd`, `anna@exchange.example@ox.example`, `"anna"@exchange.example`,
		"an\u200dna@exchange.example", "аnna@exchange.example", strings.Repeat("x", 5000), `${jndi:ldap://x}`, `%s%n`,
	} {
		w := f.upgraded(t, upgrades[0])
		quoted := `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(name) + `"`
		if err := w.send("a LOGIN " + quoted + " canary-secret\r\nz LOGOUT\r\n"); err != nil {
			t.Fatal(err)
		}
		said, ended := w.rest()
		if i := strings.Index(said, "a NO"); !ended || i < 0 && !strings.Contains(said, "a BAD") {
			t.Errorf("%q: answered %q, ended %t", name, said, ended)
		}
	}
}

// proxyHeaders holds to L7: a header from those who must send one, and from nobody else.
func proxyHeaders(t *testing.T, f *front) {
	const listed, v2 = "127.6.0.1", "\r\n\r\n\x00\r\nQUIT\n"
	for _, c := range []struct{ name, from, say string }{
		{"version 1 from a stranger", stranger, "PROXY TCP4 192.0.2.1 192.0.2.2 1000 25\r\nEHLO x\r\n"},
		{"version 2 from a stranger", stranger, v2 + "\x21\x11\x00\x0c\xc0\x00\x02\x01\xc0\x00\x02\x02\x03\xe8\x00\x19EHLO x\r\n"},
		{"none from a balancer", listed, "EHLO x\r\nQUIT\r\n"},
		{"half a header, version 2", listed, v2 + "\x21\x11\x00\x0c\xc0\x00"},
		{"version 2 that is too short for its family", listed, v2 + "\x21\x21\x00\x0c\xc0\x00\x02\x01\xc0\x00\x02\x02\x03\xe8\x00\x19"},
		{"version 2 with 64 KB behind it", listed, v2 + "\x21\x11\xff\xff\xc0\x00\x02\x01\xc0\x00\x02\x02\x03\xe8\x00\x19" + strings.Repeat("\x04\x00\x00", 20000)},
		{"version 3", listed, v2 + "\x31\x11\x00\x0c\xc0\x00\x02\x01\xc0\x00\x02\x02\x03\xe8\x00\x19"},
		{"version 2, a command that isn't", listed, v2 + "\x2f\x11\x00\x0c\xc0\x00\x02\x01\xc0\x00\x02\x02\x03\xe8\x00\x19"},
		{"version 1 without an end", listed, "PROXY TCP4 " + strings.Repeat("1", 300)},
		{"version 1 with LF", listed, "PROXY TCP4 192.0.2.1 192.0.2.2 1000 25\n"},
		{"version 1 with a port too large", listed, "PROXY TCP4 192.0.2.1 192.0.2.2 100000 25\r\n"},
		{"version 1 with another family's address", listed, "PROXY TCP4 ::1 ::2 1000 25\r\n"},
		{"version 1 with three addresses", listed, "PROXY TCP4 192.0.2.1 192.0.2.2 192.0.2.3 1000 25\r\n"},
		{"version 1 with a control byte", listed, "PROXY TCP4 192.0.2.1\x00 192.0.2.2 1000 25\r\n"},
		{"a handshake before the header", listed, "\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03"},
	} {
		for _, id := range []string{"mx-proxy", "imap-proxy"} {
			w, err := dial(f.addrs[id], c.from)
			if err != nil {
				t.Fatal(err)
			}
			_ = w.send(c.say)
			said, ended := w.rest()
			w.conn.Close()
			// Whoever isn't listed is greeted before a word is read.
			if greeted := c.from == stranger && strings.Count(said, "\n") <= 2 && !strings.Contains(said, "250"); said != "" && !greeted || !ended {
				t.Errorf("%s at %s: answered %q, ended %t", c.name, id, said, ended)
			}
		}
	}
	for _, header := range []string{"PROXY TCP4 192.0.2.1 192.0.2.2 1000 25\r\n", "PROXY UNKNOWN\r\n", v2 + "\x20\x00\x00\x00", v2 + "\x21\x11\x00\x0c\xc0\x00\x02\x01\xc0\x00\x02\x02\x03\xe8\x00\x19"} {
		w, err := dial(f.addrs["mx-proxy"], listed)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.send(header + "QUIT\r\n"); err != nil {
			t.Fatal(err)
		}
		if said, ended := w.rest(); !ended || !strings.HasPrefix(said, "220 ") {
			t.Errorf("%q: answered %q, ended %t", header, said, ended)
		}
		w.conn.Close()
	}
}
