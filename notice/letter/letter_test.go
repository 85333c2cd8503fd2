package letter

import (
	"bytes"
	"io"
	"mime"
	"mime/quotedprintable"
	"net/mail"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mailcutover/notice"
)

func letter(l notice.Language, events ...notice.Event) *Letter {
	return &Letter{
		Templates: BuiltIn(), Language: l, Installation: "lab", Node: "mx1.example.org", Channel: "ops",
		From: "postmaster@example.org", To: []string{"ops@example.org", "night@example.org"}, Events: events, Date: time.Unix(1_800_000_100, 0),
	}
}

// read parses a letter as another program would.
func readLetter(t *testing.T, l *Letter) (h mail.Header, subject, text string) {
	t.Helper()
	b, err := l.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.SplitSeq(b, []byte("\r\n")) {
		if len(line) > 998 || bytes.ContainsAny(line, "\r\n\x00") || bytes.ContainsFunc(line, func(r rune) bool { return r >= 0x7f }) {
			t.Errorf("line %.100q of %d octets", line, len(line))
		}
	}
	m, err := mail.ReadMessage(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	if subject, err = new(mime.WordDecoder).DecodeHeader(m.Header.Get("Subject")); err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(quotedprintable.NewReader(m.Body))
	if err != nil {
		t.Fatal(err)
	}
	return m.Header, subject, string(body)
}

func TestLetters(t *testing.T) {
	if err := BuiltIn().Check(); err != nil {
		t.Fatal(err)
	}
	for _, about := range notice.Types() {
		for _, l := range Languages() {
			e := sample(about)
			h, subject, text := readLetter(t, letter(l, e))
			if title := strings.Join(strings.Fields(e.Title(l)), " "); !strings.Contains(subject, title) && len([]rune(subject)) < maxSubject || !strings.Contains(text, e.Title(l)) {
				t.Errorf("%s in %s: subject %q, want %q in it and in the text\n%s", about.Type, l, subject, title, text)
			}
			if strings.ContainsAny(e.Title(l), "{}|") {
				t.Errorf("%s in %s: title %q", about.Type, l, e.Title(l))
			}
			if h.Get("Auto-Submitted") != "auto-generated" || h.Get("Content-Language") != string(l) || h.Get("Return-Path") != "" {
				t.Errorf("headers %v", h)
			}
			if to, err := h.AddressList("To"); err != nil || len(to) != 2 {
				t.Errorf("To %v, %v", to, err)
			}
			if date, err := h.Date(); err != nil || date.Unix() != 1_800_000_100 {
				t.Errorf("Date %v, %v", date, err)
			}
			if (h.Get("Importance") == "high") != (about.Severity == notice.Alert) {
				t.Errorf("%s: Importance %q", about.Type, h.Get("Importance"))
			}
		}
	}
}

func TestBundle(t *testing.T) {
	var events []notice.Event
	for _, id := range []string{"tax", "health", "police"} {
		e := sample(notice.Types()[1])
		e.Agency, e.ID = id, id
		events = append(events, e)
	}
	_, subject, text := readLetter(t, letter(notice.German, events...))
	if !strings.Contains(subject, "3 Ereignisse von 3 Behörden") || strings.Count(text, "ist geschlossen") != 3 {
		t.Errorf("subject %q, text\n%s", subject, text)
	}
	one, other := letter(notice.German, events...), letter(notice.English, events[2], events[0], events[1])
	if one.ID() != other.ID() {
		t.Error("the same events have two Message-IDs")
	}
	other.Channel = "dpo"
	if one.ID() == other.ID() || one.ID() == letter(notice.German, events[0]).ID() {
		t.Error("other letters have the same Message-ID")
	}
}

// Names and reasons that people, directories or peers chose add nothing but text.
func TestHostileTexts(t *testing.T) {
	for _, hostile := range []string{
		"x\r\nBcc: victim@example.org\r\n\r\nHello", "x\nX-Injected: 1", "x\r\r\n.\r\nQUIT", "<script>alert(1)</script>", "{{.Events}}{{define \"subject\"}}", "\x00\x1b]0;title\x07",
		"=?utf-8?q?=0d=0aBcc:_x?=", strings.Repeat("long ", 5000), strings.Repeat("x", 5000), "Ünïcödé \u202egnp.exe\u2028next", "\xff\xfe",
	} {
		e := sample(notice.About{Type: notice.AlarmRaised, Severity: notice.Alert, Data: []string{"text", "alarm"}})
		e.Data["text"], e.Data["reason"], e.Data["who"], e.Agency, e.Node = hostile, hostile, hostile, hostile, hostile
		e.Data[hostile] = hostile
		for _, l := range Languages() {
			h, subject, text := readLetter(t, letter(l, e))
			if len(h) != 13 {
				t.Errorf("%.40q: %d headers: %v", hostile, len(h), h)
			}
			if strings.ContainsAny(subject, "\r\n\x00\x1b\u202e\u2028") || strings.ContainsAny(strings.ReplaceAll(text, "\r\n", ""), "\r\n\x00\x1b\u202e\u2028") {
				t.Errorf("%.40q: subject %.100q", hostile, subject)
			}
			if got := h["Bcc"]; got != nil {
				t.Errorf("%.40q: Bcc %q", hostile, got)
			}
		}
	}
}

func TestTemplatesOfADirectory(t *testing.T) {
	write := func(name, text string) string {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	own, err := ReadTemplates(write("de.txt", `{{define "subject"}}Unser Betreff: {{len .Events}}{{end}}{{define "body"}}Unser Text {{range .Events}}{{title .}}{{end}}{{end}}`))
	if err != nil {
		t.Fatal(err)
	}
	l := letter(notice.German, sample(notice.Types()[0]))
	l.Templates = own
	if _, subject, text := readLetter(t, l); subject != "Unser Betreff: 1" || !strings.HasPrefix(text, "Unser Text Behörde health") {
		t.Errorf("subject %q, text %q", subject, text)
	}
	l.Language = notice.English // is the program's own
	if _, subject, _ := readLetter(t, l); !strings.Contains(subject, "agency health was added") {
		t.Errorf("subject %q", subject)
	}
	for name, text := range map[string]string{
		"no body":       `{{define "subject"}}x{{end}}`,
		"not parsed":    `{{define "subject"}}{{.Foo{{end}}`,
		"unknown field": `{{define "subject"}}{{.Nobody}}{{end}}{{define "body"}}x{{end}}`,
		"empty subject": `{{define "subject"}} {{end}}{{define "body"}}x{{end}}`,
		"unknown call":  `{{define "subject"}}{{exec "id"}}{{end}}{{define "body"}}x{{end}}`,
		"endless":       `{{define "subject"}}x{{end}}{{define "body"}}{{range .Events}}{{range $.Events}}{{range $.Events}}{{range $.Events}}{{printf "%100d" 1}}{{end}}{{end}}{{end}}{{end}}{{end}}`,
	} {
		if _, err := ReadTemplates(write("en.txt", text)); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
	if _, err := ReadTemplates(t.TempDir()); err == nil {
		t.Error("an empty directory was taken")
	}
}
