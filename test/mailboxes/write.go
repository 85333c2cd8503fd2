package mailboxes

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// writer writes the messages of one mailbox.
type writer struct {
	r       *rand.Rand
	address string
	o       Options
	n       int
	thread  []string // Message-IDs of a conversation
}

var subjects = []string{"Sitzung am Donnerstag", "AW: Haushaltsplan 2026", "Rückfrage zum Antrag", "WG: Vermerk", "Einladung Straßenfest", "Prüfung der Unterlagen", "Re: Minutes", "Urlaubsvertretung"}

var keywords = []string{"$Label1", "$Forwarded", "Wichtig", "Zu_erledigen", "$NotJunk"}

// message makes one for a folder.
func (w *writer) message(folder string) Message {
	w.n++
	at := w.o.Until.Add(-time.Duration(w.r.Int64N(int64(2 * 365 * 24 * time.Hour)))).Truncate(time.Second)
	if folder == Inbox && w.r.IntN(10) == 0 {
		return w.newsletter(w.r.IntN(40))
	}
	from, to := w.o.Colleagues[w.r.IntN(len(w.o.Colleagues))], w.address
	if folder == Sent || folder == Drafts {
		from, to = to, from
	}
	m := Message{Internal: at, Flags: w.flags(folder)}
	var b bytes.Buffer
	id := fmt.Sprintf("%x.%d@%s", w.r.Uint64(), w.n, strings.SplitN(from, "@", 2)[1])
	if folder == Inbox || folder == Project {
		fmt.Fprintf(&b, "Received: from mx.out.example (mx.out.example [192.0.2.%d])\r\n\tby mail.example.org; %s\r\n", w.r.IntN(250)+1, at.Format(time.RFC1123Z))
	}
	fmt.Fprintf(&b, "Date: %s\r\nFrom: %s\r\nTo: <%s>\r\n", at.Add(-time.Duration(w.r.IntN(90))*time.Second).In(time.FixedZone("", 3600)).Format(time.RFC1123Z), named(from), to)
	fmt.Fprintf(&b, "Subject: %s\r\n", encoded(subjects[w.r.IntN(len(subjects))]))
	if w.r.IntN(50) != 0 && !(folder == Drafts && w.r.IntN(2) == 0) {
		fmt.Fprintf(&b, "Message-ID: <%s>\r\n", id)
	}
	if w.r.IntN(3) == 0 && len(w.thread) > 0 {
		fmt.Fprintf(&b, "In-Reply-To: %s\r\nReferences: %s\r\n", w.thread[len(w.thread)-1], strings.Join(w.thread, "\r\n "))
	} else {
		w.thread = nil
	}
	w.thread = append(w.thread[max(0, len(w.thread)-8):], "<"+id+">")
	switch w.r.IntN(20) {
	case 0:
		b.WriteString("List-Id: <amtsleitung.example.org>\r\nPrecedence: list\r\n")
	case 1:
		fmt.Fprintf(&b, "Disposition-Notification-To: <%s>\r\n", from)
	}
	b.WriteString("MIME-Version: 1.0\r\n")
	w.body(&b)
	m.Raw = b.Bytes()
	return m
}

// flags draws flags and keywords.
func (w *writer) flags(folder string) []string {
	var flags []string
	if w.r.IntN(5) != 0 || folder == Sent {
		flags = append(flags, `\Seen`)
	}
	for _, f := range []struct {
		flag string
		in   int
	}{{`\Answered`, 6}, {`\Flagged`, 15}} {
		if w.r.IntN(f.in) == 0 {
			flags = append(flags, f.flag)
		}
	}
	if folder == Drafts {
		flags = append(flags, `\Draft`)
	}
	if w.r.IntN(6) == 0 {
		flags = append(flags, keywords[w.r.IntN(len(keywords))])
	}
	return flags
}

// body writes what follows MIME-Version: plain text, 8-bit text, HTML beside it, or with an
// attachment.
func (w *writer) body(b *bytes.Buffer) {
	text := strings.Repeat("Sehr geehrte Damen und Herren, anbei der Vermerk mit der Bitte um Kenntnisnahme.\r\n", 1+w.r.IntN(40)) +
		fmt.Sprintf("Az. %x\r\n", w.r.Uint64())
	boundary := fmt.Sprintf("=_%x", w.r.Uint64())
	switch w.r.IntN(10) {
	case 0, 1, 2, 3:
		b.WriteString("Content-Type: text/plain; charset=us-ascii\r\n\r\n" + text)
	case 4, 5:
		b.WriteString("Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\nGrüße aus Köln, 5 €\r\n" + text)
	case 6, 7:
		fmt.Fprintf(b, "Content-Type: multipart/alternative; boundary=\"%s\"\r\n\r\n--%s\r\nContent-Type: text/plain\r\n\r\n%s\r\n--%s\r\nContent-Type: text/html\r\n\r\n<p>%s</p>\r\n--%s--\r\n",
			boundary, boundary, text, boundary, strings.ReplaceAll(text, "\r\n", "<br>\r\n"), boundary)
	default:
		file := make([]byte, 2000+w.r.IntN(30_000))
		for i := range file {
			file[i] = byte(w.r.Uint32())
		}
		fmt.Fprintf(b, "Content-Type: multipart/mixed; boundary=\"%s\"\r\n\r\n--%s\r\nContent-Type: text/plain\r\n\r\n%s\r\n--%s\r\nContent-Type: application/pdf; name=\"Anlage.pdf\"\r\nContent-Transfer-Encoding: base64\r\nContent-Disposition: attachment; filename=\"Anlage.pdf\"\r\n\r\n%s--%s--\r\n",
			boundary, boundary, text, boundary, lines(base64.StdEncoding.EncodeToString(file)), boundary)
	}
}

// newsletter is the n-th that all mailboxes of the seed may have.
func (w *writer) newsletter(n int) Message {
	at := w.o.Until.Add(-time.Duration(n) * 14 * 24 * time.Hour).Truncate(time.Second)
	raw := fmt.Appendf(nil, "Date: %s\r\nFrom: Verlag <news@verlag.example>\r\nTo: leser@verlag.example\r\nSubject: Rundbrief %d\r\nMessage-ID: <rundbrief-%d-%d@verlag.example>\r\nList-Id: <rundbrief.verlag.example>\r\n\r\n%s",
		at.Format(time.RFC1123Z), n, w.o.Seed, n, strings.Repeat(fmt.Sprintf("Neues aus dem Verlag, Ausgabe %d.\r\n", n), 60))
	return Message{Raw: raw, Internal: at.Add(time.Duration(w.r.IntN(600)) * time.Second), Flags: w.flags(Inbox)}
}

// lines breaks text into lines of 76 bytes.
func lines(s string) string {
	var b strings.Builder
	for len(s) > 76 {
		b.WriteString(s[:76] + "\r\n")
		s = s[76:]
	}
	return b.String() + s + "\r\n"
}

// named writes an address with a display name.
func named(address string) string {
	local, _, _ := strings.Cut(address, "@")
	return fmt.Sprintf("%q <%s>", local, address)
}

// encoded writes a subject by RFC 2047 where it has to be.
func encoded(s string) string {
	for _, c := range s {
		if c > 0x7e {
			return "=?utf-8?B?" + base64.StdEncoding.EncodeToString([]byte(s)) + "?="
		}
	}
	return s
}
