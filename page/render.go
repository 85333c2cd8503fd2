package page

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"fmt"
	"html/template"
	"net/http"
	"strings"
	"time"

	"mailcutover/admin"
)

//go:embed templates
var templateFiles embed.FS

// views are the templates.
type views struct{ all *template.Template }

func newViews() (*views, error) {
	t, err := template.New("page").Funcs(functions).ParseFS(templateFiles, "templates/*.html")
	if err != nil {
		return nil, fmt.Errorf("page's templates: %w", err)
	}
	return &views{t}, nil
}

// visit is one request of somebody who is signed in.
type visit struct {
	page *Page
	api  *admin.Client
	id   admin.Identity
	lang Language
	r    *http.Request
	v    view
}

func (v *visit) ctx() context.Context { return v.r.Context() }

// view is one page: what it shows, and which parts of it are brought up to date by themselves.
type view struct {
	name  string // of its template
	data  func(v *visit) (title string, data any, err error)
	parts []string // ids of the elements, and names of their templates behind the view's and a slash
}

// shown is what the templates work with.
type shown struct {
	Page     *Page
	Language Language
	Title    string
	Template string
	Path     string
	Me       *admin.Identity // nil: nobody is signed in
	Method   string
	Notice   string // what was just done
	Data     any
	Live     bool // parts of it are brought up to date
	Now      time.Time
}

// T returns a text in the language of who looks.
func (s *shown) T(text string, args ...any) string { return s.Language.T(text, args...) }

// Body returns the page's own part.
func (s *shown) Body() (template.HTML, error) { return s.Part("") }

// Part returns one part of the page; "" is all of it.
func (s *shown) Part(name string) (template.HTML, error) {
	whole := s.Template
	if name != "" {
		whole += "/" + name
	}
	var b bytes.Buffer
	if err := s.Page.views.all.ExecuteTemplate(&b, whole, s); err != nil {
		return "", err
	}
	return template.HTML(b.String()), nil // of a template of ours
}

// With returns s for another template's data.
func (s *shown) With(data any) *shown {
	c := *s
	c.Data = data
	return &c
}

// render writes a page whole or not at all.
func (p *Page) render(w http.ResponseWriter, code int, s *shown) {
	s.Now = time.Now()
	var b bytes.Buffer
	if err := p.views.all.ExecuteTemplate(&b, "layout", s); err != nil {
		p.Logger.Error("page can't be made", "template", s.Template, "error", err)
		http.Error(w, "the page can't be made; the node's log has the reason", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(code)
	_, _ = b.WriteTo(w)
}

// view serves a page, and its parts as they change.
func (p *Page) view(path string, v view) {
	p.mux.HandleFunc("GET "+path, p.signedIn(func(w http.ResponseWriter, r *http.Request, who *visit) {
		who.v = v
		if r.URL.Query().Has("live") {
			p.live(w, r, who)
			return
		}
		s, err := p.look(who)
		if err != nil {
			p.refuse(w, r, who, 0, err)
			return
		}
		p.render(w, http.StatusOK, s)
	}))
}

func (p *Page) look(v *visit) (*shown, error) {
	title, data, err := v.v.data(v)
	if err != nil {
		return nil, err
	}
	return &shown{
		Page: p, Language: v.lang, Title: title, Template: v.v.name, Path: v.r.URL.RequestURI(), Me: &v.id, Data: data,
		Live: len(v.v.parts) > 0, Notice: v.lang.notice(v.r.URL.Query().Get("done")), Now: time.Now(),
	}, nil
}

// signedIn calls f for who is signed in, and sends all others to sign in.
func (p *Page) signedIn(f func(w http.ResponseWriter, r *http.Request, v *visit)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_, s, ok := p.who(r, !r.URL.Query().Has("live"))
		switch {
		case ok:
			f(w, r, &visit{page: p, api: p.As(s.id), id: s.id, lang: languageOf(r), r: r})
		case r.URL.Query().Has("live"):
			w.WriteHeader(http.StatusUnauthorized)
		case r.Method == http.MethodGet:
			http.Redirect(w, r, "/signin?next="+template.URLQueryEscaper(r.URL.RequestURI()), http.StatusSeeOther)
		default:
			http.Redirect(w, r, "/signin?ended", http.StatusSeeOther)
		}
	}
}

// refusal is what the page says when something was not to be had, or not done.
type refusal struct {
	Code   int
	Text   string
	Hint   string
	Act    bool   // nothing was changed by it
	Unsure bool   // it isn't known whether something was
	Back   string // where to go on
}

// refuse shows why something was not to be had. code 0: as the API says.
func (p *Page) refuse(w http.ResponseWriter, r *http.Request, v *visit, code int, err error) {
	out := refusal{Code: code, Text: err.Error(), Act: r.Method == http.MethodPost, Back: "/"}
	title := "That didn't work"
	switch problem := new(admin.Problem); {
	case code == http.StatusNotFound:
		title, out.Text = "There is no such page", ""
	case code != 0:
	case errors.As(err, &problem):
		out.Code, out.Text, out.Hint = problem.Status, problem.Detail, problem.Hint
		if out.Text == "" {
			out.Text = problem.Title
		}
		switch {
		case problem.Status == http.StatusNotFound:
			title = "Not found"
		case problem.Status == http.StatusForbidden:
			title = "You may not do that"
		case problem.Status == http.StatusServiceUnavailable:
			out.Unsure = out.Act
		}
	default:
		out.Code, out.Unsure = http.StatusBadGateway, out.Act
		p.Logger.Error("page", "path", r.URL.Path, "error", err)
	}
	if strings.HasPrefix(r.URL.Path, "/agencies/") {
		out.Back = "/agencies/" + r.PathValue("id")
	}
	p.render(w, out.Code, &shown{Page: p, Language: v.lang, Title: title, Template: "refused", Path: r.URL.RequestURI(), Me: &v.id, Data: out})
}
