package dsn

import (
	"fmt"
	"strings"
	"time"
)

// subjects are in ASCII, so that they stand in any header.
var subjects = map[Kind]string{
	Failed:  "Nachricht nicht zugestellt / Message not delivered",
	Delayed: "Nachricht noch nicht zugestellt / Message not yet delivered",
	Relayed: "Nachricht weitergegeben / Message passed on",
}

// wording is what people read in one language.
type wording struct {
	intro   map[Kind]string
	expired string
	answer  string // that a recipient's system gave
	until   string
	outro   string
	contact string // who helps, if nobody is configured
	sent    string
	id      string
}

var german = wording{
	intro: map[Kind]string{
		Failed:  "Ihre Nachricht konnte den unten genannten Empfängern nicht zugestellt\nwerden. Es wird nicht weiter versucht.",
		Delayed: "Ihre Nachricht konnte den unten genannten Empfängern noch nicht zugestellt\nwerden. Sie ist gespeichert, und es wird weiter versucht. Sie brauchen\nnichts zu tun und die Nachricht nicht noch einmal zu senden.",
		Relayed: "Ihre Nachricht ist für die unten genannten Empfänger an deren Mailsystem\nübergeben worden. Von dort kommt keine weitere Bestätigung.",
	},
	expired: "Die Zeit für die Zustellung ist abgelaufen.",
	answer:  "Antwort des Empfängersystems:",
	until:   "Versucht wird bis",
	outro:   "Bei Fragen hilft Ihnen %s weiter; nennen Sie bitte die Vorgangsnummer.",
	contact: "der Postmaster",
	sent:    "Angenommen am",
	id:      "Vorgangsnummer",
}

var english = wording{
	intro: map[Kind]string{
		Failed:  "Your message could not be delivered to the recipients named below. It\nwill not be tried again.",
		Delayed: "Your message could not yet be delivered to the recipients named below. It\nis stored and will be tried again. You need do nothing, and need not send\nit again.",
		Relayed: "Your message was passed on to the mail system of the recipients named\nbelow. That system sends no further confirmation.",
	},
	expired: "The time for its delivery has run out.",
	answer:  "Answer of the recipient's system:",
	until:   "It is tried until",
	outro:   "If you have questions, ask %s and give the transaction number.",
	contact: "the postmaster",
	sent:    "Accepted on",
	id:      "Transaction number",
}

// text returns what people read.
func (w *writer) text() string {
	var b strings.Builder
	w.language(&b, &german)
	b.WriteString("\n----------------------------------------------------------------------\n\n")
	w.language(&b, &english)
	return strings.ReplaceAll(b.String(), "\n", "\r\n")
}

func (w *writer) language(b *strings.Builder, l *wording) {
	b.WriteString(l.intro[w.n.Kind] + "\n")
	for i := range w.n.Recipients {
		r := &w.n.Recipients[i]
		fmt.Fprintf(b, "\n  <%s>\n", oneLine(string(r.Address)))
		if r.Expired {
			fmt.Fprintf(b, "    %s\n", l.expired)
		}
		if r.Reply != nil && w.n.Kind != Relayed {
			if r.Platform != "" {
				fmt.Fprintf(b, "    %s\n", l.answer)
			}
			fmt.Fprintf(b, "    %s\n", oneLine(replyText(r.Reply)))
		}
		if w.n.Kind == Delayed && !r.RetryUntil.IsZero() {
			fmt.Fprintf(b, "    %s %s.\n", l.until, readable(r.RetryUntil))
		}
	}
	b.WriteString("\n")
	if o := &w.n.Original; !o.Arrived.IsZero() {
		fmt.Fprintf(b, "%s: %s\n", l.sent, readable(o.Arrived))
	}
	fmt.Fprintf(b, "%s: %s\n\n", l.id, w.n.Original.Transaction)
	contact := w.Contact
	if contact == "" {
		contact = l.contact
	}
	fmt.Fprintf(b, l.outro+"\n", contact)
}

// readable is a date that is read the same in both languages.
func readable(t time.Time) string { return t.Format("2006-01-02 15:04 -0700") }

// oneLine returns s without what could begin a line of its own.
func oneLine(s string) string {
	return cut(strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, s), maxValue)
}
