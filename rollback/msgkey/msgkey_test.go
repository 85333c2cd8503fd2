package msgkey_test

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"mailcutover/mail"
	"mailcutover/rollback/msgkey"
)

const word = "a1b2"

// received returns the line that this installation writes for a transaction.
func received(id mail.TransactionID, installation string) string {
	trace := mail.Trace{
		Client: mail.Client{Helo: "mx.example", With: "ESMTPS"}, Node: "node1.example", Installation: installation,
		Transaction: id, Time: time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC),
	}
	return string(trace.Append(nil))
}

func TestTransactionsOfOurLines(t *testing.T) {
	newer, older := mail.NewTransactionID(), mail.NewTransactionID()
	header := "Received: from exchange.example by exchange.example with mapi id 15.1.2507; Sun, 1 Mar 2026 10:00:02 +0000\r\n" +
		received(newer, word) + received(mail.NewTransactionID(), "other") + received(older, word) +
		"Subject: x\r\n\r\n" + received(mail.NewTransactionID(), word)
	facts := msgkey.Parse([]byte(header), word)
	if len(facts.Transactions) != 2 || facts.Transactions[0] != newer || facts.Transactions[1] != older {
		t.Fatalf("transactions %v, want %v and %v", facts.Transactions, newer, older)
	}
	if key, ok := facts.Transaction(); !ok || key != msgkey.TransactionKey(newer) {
		t.Error("the key isn't that of the newest transaction")
	}
	refolded := strings.ReplaceAll(strings.ReplaceAll(header, "\r\n\t", " "), " (mailcutover "+word, "\r\n \t(mailcutover\r\n "+word)
	if again := msgkey.Parse([]byte(refolded), word); len(again.Transactions) != 2 || again.Transactions[0] != newer {
		t.Errorf("folded in another way: %v", again.Transactions)
	}
}

func TestWhatIsNoLineOfOurs(t *testing.T) {
	id := mail.NewTransactionID()
	for name, header := range map[string]string{
		"no installation's word":    strings.Replace(received(id, word), word, "", 1),
		"another field":             "X-" + received(id, word),
		"an id of another form":     strings.Replace(received(id, word), string(id), "4B7F", 1),
		"an id behind the date":     strings.Replace(received(id, word), " id "+string(id), "", 1) + " id " + string(id) + "\r\n",
		"within the body":           "Subject: x\r\n\r\n" + received(id, word),
		"a part of a longer word":   strings.Replace(received(id, word), word, word+"3", 1),
		"said by a peer as its own": "Received: from " + "x?mailcutover" + " by y id " + string(id) + "; Sun, 1 Mar 2026 10:00:02 +0000\r\n",
	} {
		facts := msgkey.Parse([]byte(header), word)
		if len(facts.Transactions) != 0 {
			t.Errorf("%s: %v", name, facts.Transactions)
		}
	}
	if facts := msgkey.Parse([]byte(received(id, "")), ""); len(facts.Transactions) != 0 {
		t.Errorf("without a word there are no own lines: %v", facts.Transactions)
	}
}

const plain = "Message-ID: <Abc.1@Mail.Example>\r\nDate: Sun, 1 Mar 2026 11:00:00 +0100\r\nFrom: Anna Berg <anna@health.example>\r\n"

func identity(t *testing.T, header string) msgkey.Key {
	t.Helper()
	facts := msgkey.Parse([]byte(header), word)
	key, ok := facts.Identity()
	if !ok {
		t.Errorf("no identity: %q", header)
	}
	return key
}

// TestIdentityOutlivesRewriting: each of these is written by a platform or program for plain.
func TestIdentityOutlivesRewriting(t *testing.T) {
	want := identity(t, plain)
	for name, header := range map[string]string{
		"zone and day":        "Message-ID: <Abc.1@Mail.Example>\nDate: Sun, 01 Mar 2026 10:00:00 +0000\nFrom: anna@health.example\n",
		"comment in the date": strings.Replace(plain, "+0100", "+0100 (CET (winter))", 1),
		"zone by name":        strings.Replace(plain, "11:00:00 +0100", "10:00:00 GMT", 1),
		"German zone by name": strings.Replace(plain, "+0100", "MEZ", 1),
		"no day of the week":  strings.Replace(plain, "Sun, 1", "01", 1),
		"form of asctime":     strings.Replace(plain, "Sun, 1 Mar 2026 11:00:00 +0100", "Sun Mar  1 10:00:00 2026", 1),
		"folded":              strings.ReplaceAll(plain, ": ", ":\r\n\t "),
		"case of fields":      strings.ToLower(plain[:10]) + plain[10:],
		"case of the domain":  strings.Replace(plain, "Mail.Example", "mail.EXAMPLE", 1),
		"no angle brackets":   strings.Replace(plain, "<Abc.1@Mail.Example>", "Abc.1@Mail.Example", 1),
		"spaces in brackets":  strings.Replace(plain, "<Abc.1@Mail.Example>", " < Abc.1@Mail.Example > ", 1),
		"directory's name":    strings.Replace(plain, "Anna Berg", `"Berg, Anna (Amt 3)"`, 1),
		"encoded name":        strings.Replace(plain, "Anna Berg", "=?x-unknown?Q?Anna=20Berg?=", 1),
		"case of the sender":  strings.Replace(plain, "anna@health", "Anna@Health", 1),
		"second From":         plain + "From: other@health.example\r\n",
		"another subject":     plain + "Subject: [SPAM] x\r\n",
	} {
		if got := identity(t, header); got != want {
			t.Errorf("%s: another key for %q", name, header)
		}
	}
}

func TestIdentityTellsApart(t *testing.T) {
	seen := map[msgkey.Key]string{identity(t, plain): "plain"}
	for name, header := range map[string]string{
		"case of the Message-ID's left part": strings.Replace(plain, "Abc", "abc", 1),
		"a second later":                     strings.Replace(plain, "11:00:00", "11:00:01", 1),
		"another sender":                     strings.Replace(plain, "anna@", "anne@", 1),
		"no sender":                          strings.Replace(plain, "From:", "X-From:", 1),
	} {
		key := identity(t, header)
		if other, ok := seen[key]; ok {
			t.Errorf("%s has the key of %s", name, other)
		}
		seen[key] = name
	}
	for name, header := range map[string]string{
		"no Message-ID":         strings.Replace(plain, "Message-ID", "X-Id", 1),
		"empty Message-ID":      strings.Replace(plain, "Abc.1@Mail.Example", "", 1),
		"no date":               strings.Replace(plain, "Date", "X-Date", 1),
		"date that isn't one":   strings.Replace(plain, "Mar", "Lenz", 1),
		"nothing":               "",
		"no header, only bytes": "\x00\xff\xfe\r\n",
	} {
		facts := msgkey.Parse([]byte(header), word)
		if key, ok := facts.Identity(); ok {
			t.Errorf("%s: identity %v", name, key)
		}
	}
}

// TestDateDependsOnNoMachine: time.Parse takes a zone's name from the machine's own zone.
func TestDateDependsOnNoMachine(t *testing.T) {
	saved := time.Local
	defer func() { time.Local = saved }()
	time.Local = time.FixedZone("QQT", 5*3600)
	with := identity(t, strings.Replace(plain, "+0100", "QQT", 1))
	time.Local = time.UTC
	if without := identity(t, strings.Replace(plain, "+0100", "QQT", 1)); with != without {
		t.Error("a date is another one on a machine in another zone")
	}
}

func TestKindsNeverMeet(t *testing.T) {
	id := mail.NewTransactionID()
	facts := msgkey.Parse([]byte(received(id, word)+plain), word)
	transaction, _ := facts.Transaction()
	ident, _ := facts.Identity()
	if transaction == ident || transaction.IsZero() || ident.IsZero() {
		t.Errorf("keys %v and %v", transaction, ident)
	}
	back, err := msgkey.ParseKey(ident.String())
	if err != nil || back != ident {
		t.Errorf("read back %v, %v", back, err)
	}
	for _, bad := range []string{"", "xy", ident.String() + "00", strings.Repeat("g", 32)} {
		if _, err := msgkey.ParseKey(bad); err == nil {
			t.Errorf("%q is taken for a key", bad)
		}
	}
	if !msgkey.TransactionKey("no id").IsZero() {
		t.Error("what is no transaction has a key")
	}
}

const (
	asSent = "Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\nContent-Type: multipart/mixed; boundary=a\r\n\r\n" +
		"--a\r\nContent-Type: multipart/alternative; boundary=b\r\n\r\n" +
		"--b\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nGr=C3=BC=C3=9Fe aus\r\nBonn\r\n" +
		"--b\r\nContent-Type: text/html; charset=utf-8\r\n\r\n<p>Gr&uuml;&szlig;e aus Bonn</p>\r\n--b--\r\n" +
		"--a\r\nContent-Type: application/pdf; name=x.pdf\r\nContent-Disposition: attachment\r\nContent-Transfer-Encoding: base64\r\n\r\nAAECAwQF\r\n" +
		"--a--\r\n"
	asRewritten = "Subject:\n =?iso-8859-1?Q?Gr=FC=DFe?=\nMIME-Version: 1.0\nContent-Type: multipart/mixed;\n\tboundary=\"_004_x_\"\n\n" +
		"--_004_x_\nContent-Disposition: attachment; filename=x.pdf\nContent-Type: application/pdf\nContent-Transfer-Encoding: base64\n\nAAEC\n Aw QF==\n\n" +
		"--_004_x_\nContent-Type: text/plain; charset=\"iso-8859-1\"\nContent-Transfer-Encoding: 8bit\n\n\nGr\xfc\xdfe  aus Bonn\n\n" +
		"--_004_x_--\n"
)

func content(t *testing.T, message string) msgkey.Key {
	t.Helper()
	key, err := msgkey.Content(strings.NewReader(message))
	if err != nil || key.IsZero() {
		t.Fatalf("content of %q: %v, %v", message, key, err)
	}
	return key
}

func TestContentOutlivesRewriting(t *testing.T) {
	if content(t, asSent) != content(t, asRewritten) {
		t.Error("a message that was taken apart and written anew has another key")
	}
	if content(t, "Subject: x\r\n\r\none two\r\n") != content(t, "subject:  x\n\n one\ntwo") {
		t.Error("white space makes another key")
	}
	if content(t, "\r\na\r\n") != content(t, "Content-Type: text/html\r\n\r\n<html><head><title>t</title><style>p{}</style></head><p>a</p>") {
		t.Error("a text alone in HTML has another key than the plain one")
	}
}

func TestContentTellsApart(t *testing.T) {
	seen := make(map[msgkey.Key]string)
	for name, message := range map[string]string{
		"as sent":            asSent,
		"another text":       strings.Replace(asSent, "Bonn\r\n--b", "Köln\r\n--b", 1),
		"another attachment": strings.Replace(asSent, "AAECAwQF", "AAECAwQG", 1),
		"one more":           strings.Replace(asSent, "--a--", "--a\r\nContent-Type: image/png\r\n\r\nx\r\n--a--", 1),
		"another subject":    strings.Replace(asSent, "Gr=C3=BC", "Gr=C3=A4", 1),
		"empty":              "",
		"only a subject":     "Subject: x\r\n\r\n",
		"broken":             "Content-Type: multipart/mixed\r\n\r\nx",
		"broken otherwise":   "Content-Type: multipart/mixed\r\n\r\ny",
		"forwarded":          "Content-Type: message/rfc822\r\n\r\n" + asSent,
		"forwarded, another": "Content-Type: message/rfc822\r\n\r\n" + strings.Replace(asSent, "Gr=C3=BC", "Gr=C3=A4", 1),
	} {
		key := content(t, message)
		if other, ok := seen[key]; ok {
			t.Errorf("%q has the key of %q", name, other)
		}
		seen[key] = name
	}
}

func TestContentInAnyPieces(t *testing.T) {
	want := content(t, asSent)
	for name, r := range map[string]io.Reader{
		"bytes":        iotest.OneByteReader(strings.NewReader(asSent)),
		"halves":       iotest.HalfReader(strings.NewReader(asSent)),
		"with the end": iotest.DataErrReader(strings.NewReader(asSent)),
	} {
		if key, err := msgkey.Content(r); err != nil || key != want {
			t.Errorf("%s: %v, %v", name, key, err)
		}
	}
	broken := errors.New("connection lost")
	if _, err := msgkey.Content(io.MultiReader(strings.NewReader(asSent[:200]), iotest.ErrReader(broken))); !errors.Is(err, broken) {
		t.Errorf("a lost connection gives %v", err)
	}
}
