package page

import (
	"net/http"
	"net/url"
	"strings"
	"time"

	"mailcutover/admin"
)

// signInView is what the form shows.
type signInView struct {
	Next   string
	Wrong  bool
	Ended  bool
	SignOn string
}

// local returns a path of this page to go on at; "/" for all else.
func local(next string) string {
	u, err := url.Parse(next)
	if err != nil || !strings.HasPrefix(next, "/") || strings.HasPrefix(next, "//") || strings.ContainsAny(next, "\\\r\n\t") || u.Host != "" || u.Scheme != "" {
		return "/"
	}
	if u.Path == "/signin" || u.Path == "/signout" || strings.HasPrefix(u.Path, "/signon/") {
		return "/"
	}
	return next
}

func (p *Page) signInForm(w http.ResponseWriter, r *http.Request, code int, v signInView) {
	if p.SignOn != nil {
		v.SignOn = p.SignOn.Name()
	}
	p.render(w, code, &shown{Page: p, Language: languageOf(r), Title: "Sign in", Template: "signin", Path: r.URL.Path, Data: v})
}

func (p *Page) showSignIn(w http.ResponseWriter, r *http.Request) {
	next := local(r.URL.Query().Get("next"))
	if _, _, ok := p.who(r, true); ok {
		http.Redirect(w, r, next, http.StatusSeeOther)
		return
	}
	p.signInForm(w, r, http.StatusOK, signInView{Next: next, Ended: r.URL.Query().Has("ended")})
}

func (p *Page) signIn(w http.ResponseWriter, r *http.Request) {
	token, next := strings.TrimSpace(r.PostFormValue("token")), local(r.PostFormValue("next"))
	id, ok := p.Identify(token)
	if !ok {
		if !p.sessions.guess() {
			http.Error(w, "too many attempts; try again in a moment", http.StatusTooManyRequests)
			return
		}
		p.Logger.Warn("nobody signed in: no valid token", "peer", r.RemoteAddr)
		p.signInForm(w, r, http.StatusForbidden, signInView{Next: next, Wrong: true})
		return
	}
	p.Logger.Info("signed in", "person", id.Person, "token", id.By, "peer", r.RemoteAddr)
	http.SetCookie(w, p.cookie(p.sessions.begin(session{token: token, id: id, method: "token"}), int(sessionLife.Seconds())))
	http.Redirect(w, r, next, http.StatusSeeOther)
}

// signOn lets somebody sign in elsewhere.
func (p *Page) signOn(w http.ResponseWriter, r *http.Request) {
	p.SignOn.ServeHTTP(w, r, func(id admin.Identity, ends time.Time) {
		p.Logger.Info("signed in", "person", id.Person, "by", id.By, "peer", r.RemoteAddr)
		http.SetCookie(w, p.cookie(p.sessions.begin(session{id: id, ends: ends, method: id.By}), int(sessionLife.Seconds())))
		// The browser comes from another site and sends no cookie that is SameSite=Strict with this
		// redirection; the page that it loads then goes on by itself.
		p.render(w, http.StatusOK, &shown{Page: p, Language: languageOf(r), Title: "Signed in", Template: "signedon", Path: "/", Data: nil})
	})
}

func (p *Page) signOut(w http.ResponseWriter, r *http.Request) {
	if key, s, ok := p.who(r, false); ok {
		p.sessions.end(key)
		p.Logger.Info("signed out", "person", s.id.Person, "peer", r.RemoteAddr)
	}
	http.SetCookie(w, p.cookie("", -1))
	http.Redirect(w, r, "/signin", http.StatusSeeOther)
}
