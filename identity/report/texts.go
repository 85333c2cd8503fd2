package report

import (
	"fmt"
	"strings"
	"time"

	"mailcutover/identity/check"
	"mailcutover/identity/list"
)

// Language is the language of a report.
type Language string

const (
	English Language = "en"
	German  Language = "de"
)

// ParseLanguage returns the language of a tag such as de or de-DE.
func ParseLanguage(s string) (Language, error) {
	switch tag, _, _ := strings.Cut(strings.ToLower(s), "-"); tag {
	case "en":
		return English, nil
	case "de":
		return German, nil
	}
	return "", fmt.Errorf("language %q: want en or de", s)
}

// Pick returns the text in the report's language.
func (l Language) Pick(english, german string) string {
	if l == German {
		return german
	}
	return english
}

// say fills in the text in the report's language.
func (l Language) say(english, german string, args ...any) string {
	return fmt.Sprintf(l.Pick(english, german), args...)
}

// owner is whose an address or an account is: people know mailboxes by their addresses.
func owner(f *check.Finding) string {
	if f.Of == "" {
		return f.Owner.String()
	}
	return fmt.Sprintf("%s (%s)", f.Of, f.Owner)
}

// when is a moment as people write it down.
func (l Language) when(at time.Time) string {
	return at.UTC().Format(l.Pick("2006-01-02 15:04 MST", "02.01.2006, 15:04 Uhr MST"))
}

// finding says what was found of a row.
func (l Language) finding(f *check.Finding, row *list.Row) string {
	switch f.Code {
	case check.CodeRight:
		return l.Pick("right", "richtig")
	case check.CodeOtherMailbox:
		text := l.say("the address is that of the mailbox %s", "die Adresse gehört zum Postfach %s", owner(f))
		if f.Address != "" {
			text += l.say("; its mail would go to %s", "; ihre Post ginge an %s", f.Address)
		}
		return text
	case check.CodeOtherAccount:
		text := l.say("the account is that of the mailbox %s", "das Konto gehört zum Postfach %s", owner(f))
		if f.Address != "" {
			text += l.say("; the id is %s's", "; die ID ist die von %s", f.Address)
		}
		return text
	case check.CodeOtherAgency:
		switch {
		case f.Source == "":
			return l.say("not of agency %s", "nicht von der Dienststelle %s", row.Agency)
		case f.Agency == "":
			return l.say("%s counts it to no agency", "%s zählt es zu keiner Dienststelle", f.Source)
		}
		return l.say("%s counts it to agency %s", "%s zählt es zur Dienststelle %s", f.Source, f.Agency)
	case check.CodeNoAddress:
		return l.say("%s doesn't know the address", "%s kennt die Adresse nicht", f.Source)
	case check.CodeNoID:
		return l.say("%s doesn't know the directory id", "%s kennt die Verzeichnis-ID nicht", f.Source)
	case check.CodeNoAccount:
		return l.say("%s doesn't know the account", "%s kennt das Konto nicht", f.Source)
	case check.CodeTwice:
		return l.say("two objects of %s have it", "zwei Objekte von %s haben das", f.Source)
	case check.CodeNotMailbox:
		return l.say("%s says that it is no mailbox", "laut %s kein Postfach", f.Source)
	case check.CodeDisabled:
		return l.say("%s says that the account is disabled", "laut %s ist das Konto deaktiviert", f.Source)
	case check.CodeAlias:
		return l.say("an alias; the primary address is %s", "ein Alias; die Hauptadresse ist %s", f.Address)
	case check.CodeTarget:
		return l.say("%s has another pair: %s", "%s hat ein anderes Paar: %s", f.Source, l.other(f))
	case check.CodeNotOnTarget:
		return l.say("%s doesn't know the mailbox yet", "%s kennt das Postfach noch nicht", f.Source)
	case check.CodeTable:
		return l.say("routed elsewhere today: %s; the list would change that", "heute anders geroutet: %s; die Liste würde das ändern", l.other(f))
	case check.CodeEarlier:
		return l.say("the earlier list %s has another pair: %s", "die frühere Liste %s hat ein anderes Paar: %s", f.Source, l.other(f))
	case check.CodeOtherName:
		if f.Owner.IsZero() {
			return l.say("two objects of %s have %s, which the mailbox would get", "zwei Objekte von %s haben %s, was das Postfach bekäme", f.Source, f.Name)
		}
		return l.say("%s, which the mailbox would get or be called by, is the mailbox %s", "%s, was das Postfach bekäme oder wie es genannt würde, ist das Postfach %s", f.Name, owner(f))
	case check.CodeDigest:
		return l.Pick("its digest is wrong: the row was changed since it was generated", "die Prüfsumme ist falsch: die Zeile wurde seit der Erzeugung geändert")
	}
	return l.Pick("not compared", "nicht verglichen")
}

// other says what another source has instead.
func (l Language) other(f *check.Finding) string {
	switch {
	case !f.Owner.IsZero() && f.Agency != "":
		return l.say("mailbox %s of agency %s", "Postfach %s der Dienststelle %s", f.Owner, f.Agency)
	case !f.Owner.IsZero():
		return l.say("mailbox %s", "Postfach %s", f.Owner)
	case f.Address != "":
		return l.say("address %s", "Adresse %s", f.Address)
	case f.Agency != "":
		return l.say("agency %s", "Dienststelle %s", f.Agency)
	}
	return l.Pick("a fixed address", "eine feste Adresse")
}

// permutation says what was done to a list.
func (l Language) permutation(p *check.Permutation, h *list.Headers) string {
	column := l.column(p.Column, h)
	switch p.How {
	case check.Sorted:
		return l.say("The column %s was sorted without the others: rows %d to %d.", "Die Spalte %s wurde ohne die anderen sortiert: Zeilen %d bis %d.", column, p.First, p.Last)
	case check.SortedDown:
		return l.say("The column %s was sorted in descending order without the others: rows %d to %d.", "Die Spalte %s wurde ohne die anderen absteigend sortiert: Zeilen %d bis %d.", column, p.First, p.Last)
	case check.Rotated:
		if p.By < 0 {
			return l.say("The column %s was moved up by %d against the others: rows %d to %d.", "Die Spalte %s wurde gegen die anderen um %d nach oben verschoben: Zeilen %d bis %d.", column, -p.By, p.First, p.Last)
		}
		return l.say("The column %s was moved down by %d against the others: rows %d to %d.", "Die Spalte %s wurde gegen die anderen um %d nach unten verschoben: Zeilen %d bis %d.", column, p.By, p.First, p.Last)
	case check.Swapped:
		return l.say("Cells of the column %s were exchanged: rows %s.", "Zellen der Spalte %s wurden vertauscht: Zeilen %s.", column, lines(p))
	}
	return l.say("The column %s is in another order than the others: rows %d to %d.", "Die Spalte %s steht in anderer Reihenfolge als die anderen: Zeilen %d bis %d.", column, p.First, p.Last)
}

// column is a column's name as its file has it, else ours.
func (l Language) column(c check.Column, h *list.Headers) string {
	name := ""
	switch c {
	case check.ColumnAddress:
		name = h.Address
	case check.ColumnAccount:
		name = h.Account
	case check.ColumnID:
		name = h.ID
	}
	if name != "" {
		return fmt.Sprintf("%q", name)
	}
	switch c {
	case check.ColumnAddress:
		return l.Pick("address", "Adresse")
	case check.ColumnAccount:
		return l.Pick("account", "Konto")
	}
	return l.Pick("directory id", "Verzeichnis-ID")
}

// lines names the rows of a permutation, up to six as exchanges have.
func lines(p *check.Permutation) string {
	parts := make([]string, 0, len(p.Pairs))
	for i := range p.Pairs {
		parts = append(parts, fmt.Sprint(p.Pairs[i].Line))
	}
	return strings.Join(parts, ", ")
}
