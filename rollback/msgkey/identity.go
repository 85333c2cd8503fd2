package msgkey

import (
	"net/mail"
	"strconv"
	"strings"
	"time"
)

// Identity returns the key of who wrote what and when: Message-ID, date and sender. False
// without a Message-ID, or without a date that can be read.
//
// Of the Message-ID, angle brackets, comments and white space are ignored, and so is the
// case of what is behind its last "@". The date counts as an instant, in seconds: its zone,
// its day of the week and comments don't. The sender is the address of From, or without one
// that of Sender, in lower case, without the display name, which Exchange takes from the
// directory.
func (f *Facts) Identity() (Key, bool) {
	id := normalID(f.MessageID)
	at, ok := f.Written()
	if id == "" || !ok {
		return Key{}, false
	}
	return digest(kindIdentity, id, strconv.FormatInt(at.Unix(), 10), normalSender(f.From, f.Sender)), true
}

// Written returns when the message was written by its Date field, in UTC and whole seconds;
// false if it has none that can be read.
func (f *Facts) Written() (time.Time, bool) {
	return parseDate(f.Date)
}

// normalID returns the Message-ID without what platforms change on it; empty if there is none.
func normalID(field string) string {
	id := withoutComments(field)
	if start := strings.IndexByte(id, '<'); start >= 0 {
		id = id[start+1:]
		if end := strings.IndexByte(id, '>'); end >= 0 {
			id = id[:end]
		}
	}
	id = strings.ReplaceAll(id, " ", "")
	if at := strings.LastIndexByte(id, '@'); at >= 0 {
		id = id[:at] + strings.ToLower(id[at:])
	}
	return id
}

// normalSender returns the address of the first field that has one, in lower case.
func normalSender(fields ...string) string {
	for _, field := range fields {
		if address := addressOf(field); address != "" {
			return strings.ToLower(address)
		}
	}
	return ""
}

// addressOf returns the first address of a field, or what stands where one should.
func addressOf(field string) string {
	if list, err := parser.ParseList(field); err == nil && len(list) > 0 {
		return list[0].Address
	}
	// Not by the grammar: what is in the last angle brackets, or the word with an "@".
	if end := strings.LastIndexByte(field, '>'); end >= 0 {
		if start := strings.LastIndexByte(field[:end], '<'); start >= 0 {
			return strings.ReplaceAll(field[start+1:end], " ", "")
		}
	}
	for word := range strings.FieldsSeq(withoutComments(field)) {
		if strings.Contains(word, "@") {
			return strings.Trim(word, `"',;<>`)
		}
	}
	return ""
}

// parser reads addresses; display names aren't needed, so unknown charsets are no error.
var parser = mail.AddressParser{}

// dateForms are what is met besides RFC 5322 section 3.3 and its obsolete forms, which
// mail.ParseDate reads.
var dateForms = []string{
	"Mon, 2 Jan 2006 15:04:05",
	"2 Jan 2006 15:04:05",
	"Mon Jan 2 15:04:05 2006",
	"Mon Jan 2 15:04:05 -0700 2006",
	"Mon Jan 2 15:04:05 2006 -0700",
	"Monday, 2 Jan 2006 15:04:05 -0700",
	"Mon, 2 January 2006 15:04:05 -0700",
	time.RFC3339,
	"2006-01-02 15:04:05 -0700",
	"2006-01-02 15:04:05",
}

// zones are the names of RFC 5322 section 4.3, and those that Germany's programs write.
var zones = map[string]string{
	"EST": "-0500", "EDT": "-0400", "CST": "-0600", "CDT": "-0500",
	"MST": "-0700", "MDT": "-0600", "PST": "-0800", "PDT": "-0700",
	"CET": "+0100", "MEZ": "+0100", "CEST": "+0200", "MESZ": "+0200", "WEST": "+0100",
}

// parseDate reads a Date field's value as an instant.
func parseDate(field string) (time.Time, bool) {
	text := withNumericZone(withoutComments(field))
	if text == "" {
		return time.Time{}, false
	}
	if at, err := mail.ParseDate(text); err == nil {
		return at.UTC().Truncate(time.Second), true
	}
	for _, form := range dateForms {
		if at, err := time.Parse(form, text); err == nil {
			return at.UTC().Truncate(time.Second), true
		}
	}
	return time.Time{}, false
}

// withNumericZone writes a zone's name behind the time as a number; a name that isn't known
// counts as UTC (RFC 5322 section 4.3). Left to time.Parse it would depend on the machine's
// own zone, and "GMT+0200" would be read as something else in each form.
func withNumericZone(date string) string {
	words := strings.Fields(date)
	timeSeen := false
	for i, word := range words {
		if strings.Contains(word, ":") {
			timeSeen = true
			continue
		}
		letters := len(word) - len(strings.TrimLeft(word, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"))
		switch {
		case !timeSeen || letters == 0:
		case letters < len(word) && (word[letters] == '+' || word[letters] == '-'):
			words[i] = word[letters:]
		case letters == len(word):
			words[i] = "+0000"
			if zone, ok := zones[strings.ToUpper(word)]; ok {
				words[i] = zone
			}
		}
	}
	return strings.Join(words, " ")
}

// withoutComments returns a field's value without RFC 5322's comments, which nest, and with
// white space as [unfold] leaves it. Quoted parentheses stay.
func withoutComments(field string) string {
	if !strings.Contains(field, "(") {
		return unfold(field, MaxField)
	}
	var b strings.Builder
	depth, quoted := 0, false
	for i := 0; i < len(field); i++ {
		c := field[i]
		switch {
		case c == '\\' && i+1 < len(field) && (quoted || depth > 0):
			i++
			if depth == 0 {
				b.WriteByte(c)
				b.WriteByte(field[i])
			}
			continue
		case c == '"' && depth == 0:
			quoted = !quoted
		case c == '(' && !quoted:
			depth++
			b.WriteByte(' ')
			continue
		case c == ')' && !quoted && depth > 0:
			depth--
			continue
		}
		if depth == 0 {
			b.WriteByte(c)
		}
	}
	return unfold(b.String(), MaxField)
}
