package incident

import (
	_ "embed"
	"fmt"
	"html/template"
	"slices"
	"time"

	"mailcutover/admin"
	"mailcutover/notice"
)

//go:embed summary.html
var summaryText string

// report is what the summaries show.
type report struct {
	*Material
	Deliveries *admin.Manifest
	Rows       int
	TimeLine   []Moment
	Boxes      []Box
	Senders    []Correspondent
	Ways       []Way
	Operations []admin.Operation
	Missing    []string
}

func (w *Writer) report(m *Material, deliveries *admin.Manifest) *report {
	return &report{
		Material: m, Deliveries: deliveries, Rows: w.tally.rows, TimeLine: m.timeLine(), Boxes: w.tally.mailboxes(m.Findings), Senders: w.tally.correspondents(),
		Ways: w.tally.byMapping(), Operations: m.operations(), Missing: m.missing(deliveries),
	}
}

// shown is how many rows of a table the summary has; the files have all.
const shown = 200

// germanTexts are the summary's texts in German, by the English ones.
var germanTexts = map[string]string{
	"Incident export": "Vorfallsbericht", "Agency": "Behörde", "Time": "Zeit", "From": "Von", "To": "Bis", "Made": "Erstellt", "By": "Von", "Reason": "Grund", "Program": "Programm", "Node": "Knoten",
	"What is missing": "Was fehlt", "Nothing is known to be missing.": "Es ist nichts bekannt, was fehlt.",
	"In short":                                "In Kürze",
	"messages were handed over":               "Nachrichten wurden übergeben",
	"mailboxes were concerned":                "Postfächer waren betroffen",
	"senders wrote to them":                   "Absender schrieben an sie",
	"findings of content in a wrong mailbox":  "Befunde über Inhalte im falschen Postfach",
	"messages came back to where they belong": "Nachrichten kamen dorthin zurück, wohin sie gehören",
	"messages are not back":                   "Nachrichten sind nicht zurück",
	"Where the mail went, by which mapping":   "Wohin die Mail ging, nach welcher Zuordnung",
	"Mapping":                                 "Zuordnung", "Epoch": "Epoche", "Platform": "Plattform", "Result": "Ergebnis", "Messages": "Nachrichten", "First": "Erste", "Last": "Letzte",
	"Switches": "Umschaltungen", "Operation": "Operation", "Kind": "Art", "Started": "Begonnen", "Closed": "Geschlossen", "Open again": "Wieder offen", "Step": "Schritt", "Person": "Person",
	"Lists in force": "Geltende Listen", "List": "Liste", "Mailboxes": "Postfächer", "Standing": "Stand", "Since": "Seit", "Approved by": "Freigegeben von", "Digest": "Prüfsumme",
	"What came back": "Was zurückkam", "Delivered": "Zugestellt", "Back": "Zurück", "Not back": "Nicht zurück", "Begun": "Begonnen", "State": "Stand",
	"Content in a wrong mailbox": "Inhalte im falschen Postfach", "Finding": "Befund", "In": "In", "Likely of": "Vermutlich von",
	"Mailboxes concerned": "Betroffene Postfächer", "Address": "Adresse", "Findings": "Befunde",
	"Correspondents": "Korrespondenten", "Sender": "Absender", "To mailboxes": "An Postfächer", "null sender": "leerer Absender",
	"Time line": "Verlauf", "Who": "Wer", "What": "Was", "About": "Worüber", "Text": "Text",
	"None.":                      "Keine.",
	"All rows are in the files.": "Alle Zeilen stehen in den Dateien.",
	"This export names people. It has neither subjects nor content of messages. See manifest.json for what it consists of.": "Dieser Bericht nennt Personen. Er enthält weder Betreffe noch Inhalte von Nachrichten. Woraus er besteht, steht in manifest.json.",
	"Times are in UTC.": "Zeiten sind in UTC.",
	"It doesn't say whether the authority has to be told, nor what is to be done: that is for the data protection officer.": "Er sagt nicht, ob die Aufsicht zu unterrichten ist, und nicht, was zu tun ist: Das entscheidet die oder der Datenschutzbeauftragte.",
	"cutover": "Umschaltung", "rollback": "Rückkehr", "remap": "Neuzuordnung", "recall": "Rückholung", "sweep": "Nachholung",
	"crossed": "vertauscht", "possible": "möglich", "foreign": "fremd", "missing": "fehlend", "clash": "widersprüchlich",
	"found": "gefunden", "removed": "behoben gemeldet", "confirmed": "bestätigt behoben", "dismissed": "verworfen",
	"delivered": "zugestellt", "not acknowledged": "nicht bestätigt", "refused": "abgelehnt", "in doubt": "ungewiss", "not sent": "nicht gesendet", "pending": "offen",
}

// summary writes the summary in one language.
func (w *Writer) summary(name string, l notice.Language, r *report) error {
	t := func(text string) string {
		if l == notice.German && germanTexts[text] != "" {
			return germanTexts[text]
		}
		return text
	}
	stamp := func(at time.Time) string {
		if at.IsZero() {
			return ""
		}
		return at.UTC().Format("2006-01-02 15:04:05")
	}
	page, err := template.New(name).Funcs(template.FuncMap{
		"t": t, "stamp": stamp,
		"moment": func(at *time.Time) string {
			if at == nil {
				return ""
			}
			return stamp(*at)
		},
		"short": func(digest string) string { return digest[:min(16, len(digest))] },
		"head":  func(n int) int { return min(n, shown) },
		"more":  func(n int) bool { return n > shown },
		"back":  func() int { return r.sum(func(t *admin.RecallTotals) int { return t.DeliveredBack }) },
		"left":  func() int { return r.sum(func(t *admin.RecallTotals) int { return t.NotBack }) },
		"active": func() []admin.BatchList {
			return slices.DeleteFunc(slices.Clone(r.Lists.Lists), func(l admin.BatchList) bool { return l.Standing != "active" && l.Standing != "superseded" })
		},
		"lang": func() string { return string(l) },
	}).Parse(summaryText)
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	p, err := w.create(name)
	if err != nil {
		return err
	}
	if err := page.Execute(p, r); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return p.end()
}

// sum adds up a figure of the recalls that concern the span of time.
func (r *report) sum(figure func(*admin.RecallTotals) int) (n int) {
	for i := range r.Recalls.Recalls {
		n += figure(&r.Recalls.Recalls[i].Totals)
	}
	return n
}
