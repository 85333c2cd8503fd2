package page

import (
	"fmt"
	"net/http"

	"golang.org/x/text/language"
)

// Language is one that the page speaks.
type Language string

// The languages.
const (
	English Language = "en"
	German  Language = "de"
)

const languageCookie = "mailcutover-language"

var matcher = language.NewMatcher([]language.Tag{language.English, language.German})

// languageOf returns the language that somebody has chosen, or his browser prefers.
func languageOf(r *http.Request) Language {
	if c, err := r.Cookie(languageCookie); err == nil && (c.Value == string(English) || c.Value == string(German)) {
		return Language(c.Value)
	}
	tags, _, err := language.ParseAcceptLanguage(r.Header.Get("Accept-Language"))
	if err != nil || len(tags) == 0 {
		return English
	}
	if _, i, _ := matcher.Match(tags...); i == 1 {
		return German
	}
	return English
}

// setLanguage keeps a choice for a year.
func (p *Page) setLanguage(w http.ResponseWriter, r *http.Request) {
	l := Language(r.PostFormValue("language"))
	if l != German {
		l = English
	}
	http.SetCookie(w, &http.Cookie{Name: languageCookie, Value: string(l), Path: "/", MaxAge: 365 * 24 * 3600, HttpOnly: true, Secure: p.Secure, SameSite: http.SameSiteLaxMode})
	next := local(r.PostFormValue("next"))
	http.Redirect(w, r, next, http.StatusSeeOther)
}

// T returns an English text, a format of package fmt if there are args, in the language. One
// that has no translation stays English.
func (l Language) T(text string, args ...any) string {
	if l == German {
		if t, ok := german[text]; ok {
			text = t
		}
	}
	if len(args) == 0 {
		return text
	}
	return fmt.Sprintf(text, args...)
}

// Other returns the other language.
func (l Language) Other() Language {
	if l == German {
		return English
	}
	return German
}

// notices are what the page says after an act, by a word in the address: no text of the address
// itself is ever shown.
var notices = map[string]string{
	"locked": "The agency is locked.", "frozen": "No operation of the agency may begin.", "lifted": "Operations may begin again.",
	"proposed": "Proposed. Somebody else has to approve it.", "approved": "Approved.", "withdrawn": "Withdrawn.", "aborting": "The operation is being aborted.",
	"armed": "The agency is armed.", "settled": "The agency is settled.", "confirmed": "Confirmed.", "cleared": "The alarm is cleared.", "started": "Started.", "done": "Done.", "noted": "Noted.",
	"told": "Noted.",
}

func (l Language) notice(word string) string {
	if t, ok := notices[word]; ok {
		return l.T(t)
	}
	return ""
}
