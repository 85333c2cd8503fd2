package sasl

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"mailcutover/proxy/login"
)

func TestDecode(t *testing.T) {
	tests := []struct {
		text string
		want string
		err  error
	}{
		{"", "", nil},
		{"AGFubmEAc2VjcmV0", "\x00anna\x00secret", nil},
		{"YQ==", "a", nil},
		{"YWI=", "ab", nil},
		{strings.Repeat("AAAA", 10), strings.Repeat("\x00", 30), nil},
		{strings.Repeat("AAAA", 10) + "AA==", "", ErrTooLong},
		{strings.Repeat("AAAA", 1000), "", ErrTooLong},
		{"YQ", "", ErrMalformed},
		{"YQ=", "", ErrMalformed},
		{"YR==", "", ErrMalformed}, // stray bits: a second text for the same bytes
		{"YQ==YQ==", "", ErrMalformed},
		{"=", "", ErrMalformed},
		{"====", "", ErrMalformed},
		{"YQ= =", "", ErrMalformed},
		{"YWJj\r\n\r\n", "", ErrMalformed},
		{"YW\nJj\r\nYQ==", "", ErrMalformed},
		{"YW Jj", "", ErrMalformed},
		{"YWJ\t", "", ErrMalformed},
		{" YWJ", "", ErrMalformed},
		{"YW-_", "", ErrMalformed},
		{"YW\x00j", "", ErrMalformed},
		{"*", "", ErrMalformed},
	}
	for _, test := range tests {
		got, err := Decode([]byte(test.text), 30)
		if string(got) != test.want || !errors.Is(err, test.err) || err == nil && got == nil {
			t.Errorf("%q: got %q, %v, want %q, %v", test.text, got, err, test.want, test.err)
		}
		if err == nil && string(Encode(got)) != test.text {
			t.Errorf("%q: encoded %q", test.text, Encode(got))
		}
	}
	if got, err := decodeInitial([]byte("="), 30); err != nil || got == nil || len(got) > 0 {
		t.Errorf("an empty initial response: got %q, %v", got, err)
	}
	if _, err := decodeInitial(nil, 30); !errors.Is(err, ErrMalformed) {
		t.Errorf("no initial response: got %v", err)
	}
}

func TestPlain(t *testing.T) {
	tests := []struct {
		msg                     string
		authzid, name, password string
		ok                      bool
	}{
		{"\x00anna\x00secret", "", "anna", "secret", true},
		{"boss\x00anna\x00secret", "boss", "anna", "secret", true},
		{"\x00an\xc3\xa4\x00s\xe4 \r\n", "", "an\xc3\xa4", "s\xe4 \r\n", true},
		{"", "", "", "", false},
		{"anna", "", "", "", false},
		{"anna\x00secret", "", "", "", false},
		{"\x00\x00", "", "", "", false},
		{"\x00anna\x00", "", "", "", false},
		{"\x00\x00secret", "", "", "", false},
		{"\x00anna\x00secret\x00", "", "", "", false},
		{"b\x00a\x00pw\x00c", "", "", "", false},
	}
	for _, test := range tests {
		authzid, name, password, err := readPlain([]byte(test.msg))
		if authzid != test.authzid || name != test.name || string(password) != test.password || (err == nil) != test.ok {
			t.Errorf("%q: got %q, %q, %q, %v", test.msg, authzid, name, password, err)
		}
		if err != nil {
			continue
		}
		if msg, err := encodePlain(authzid, name, password); err != nil || string(msg) != test.msg {
			t.Errorf("%q: written %q, %v", test.msg, msg, err)
		}
	}
	for _, test := range [][3]string{{"", "", "x"}, {"", "a", ""}, {"a\x00", "a", "x"}, {"", "a\x00", "x"}, {"", "a", "x\x00"}} {
		if msg, err := encodePlain(test[0], test[1], []byte(test[2])); err == nil {
			t.Errorf("%q: written %q", test, msg)
		}
	}
}

func TestOAuth(t *testing.T) {
	tests := []struct {
		mechanism, msg string
		user, token    string
		ok             bool
	}{
		{"OAUTHBEARER", "n,a=anna@x.example,\x01host=h\x01port=143\x01auth=Bearer abc.d-_~+/=\x01\x01", "anna@x.example", "abc.d-_~+/=", true},
		{"OAUTHBEARER", "y,a=an=2Cna=3D,\x01auth=bEARER  abc\x01\x01", "an,na=", "abc", true},
		{"OAUTHBEARER", "n,,\x01auth=Bearer abc\x01\x01", "", "abc", true},
		{"OAUTHBEARER", "p=tls-unique,a=a,\x01auth=Bearer abc\x01\x01", "", "", false},
		{"OAUTHBEARER", "n,a=,\x01auth=Bearer abc\x01\x01", "", "", false},
		{"OAUTHBEARER", "n,a=x=2c,\x01auth=Bearer abc\x01\x01", "", "", false},
		{"OAUTHBEARER", "n,a=x=,\x01auth=Bearer abc\x01\x01", "", "", false},
		{"OAUTHBEARER", "n,a=x,y,\x01auth=Bearer abc\x01\x01", "", "", false},
		{"OAUTHBEARER", "n,b=x,\x01auth=Bearer abc\x01\x01", "", "", false},
		{"OAUTHBEARER", "n,a=x\x01auth=Bearer abc\x01\x01", "", "", false},
		{"OAUTHBEARER", "n,a=x\x00,\x01auth=Bearer abc\x01\x01", "", "", false},
		{"OAUTHBEARER", "n,a=x,\x01auth=Bearer abc\x01", "", "", false},
		{"OAUTHBEARER", "n,a=x,\x01auth=Bearer abc\x01\x01\x01", "", "", false},
		{"OAUTHBEARER", "n,a=x,\x01auth=Bearer abc\x01auth=Bearer d\x01\x01", "", "", false},
		{"OAUTHBEARER", "n,a=x,\x01auth=Basic abc\x01\x01", "", "", false},
		{"OAUTHBEARER", "n,a=x,\x01auth=Bearer \x01\x01", "", "", false},
		{"OAUTHBEARER", "n,a=x,\x01auth=Bearer a b\x01\x01", "", "", false},
		{"OAUTHBEARER", "n,a=x,\x01auth=Bearer a\xe4\x01\x01", "", "", false},
		{"OAUTHBEARER", "n,a=x,\x01\x01", "", "", false},
		{"OAUTHBEARER", "\x01", "", "", false}, // the answer to an error that nobody sent
		{"OAUTHBEARER", "", "", "", false},
		{"OAUTHBEARER", "n,a=x,\x01" + strings.Repeat("k\x01", 40) + "\x01", "", "", false},
		{"XOAUTH2", "user=anna@x.example\x01auth=Bearer abc\x01\x01", "anna@x.example", "abc", true},
		{"XOAUTH2", "user=a\x01user=b\x01auth=Bearer abc\x01\x01", "", "", false},
		{"XOAUTH2", "user=a\x01USER=b\x01auth=Bearer abc\x01\x01", "", "", false},
		{"XOAUTH2", "user=\x01auth=Bearer abc\x01\x01", "", "", false},
		{"XOAUTH2", "auth=Bearer abc\x01\x01", "", "", false},
		{"XOAUTH2", "user=a\x00b\x01auth=Bearer abc\x01\x01", "", "", false},
		{"XOAUTH2", "user=a\x01auth=Bearer abc", "", "", false},
		{"XOAUTH2", "", "", "", false},
	}
	for _, test := range tests {
		read, write := readOAuthBearer, encodeOAuthBearer
		if test.mechanism == "XOAUTH2" {
			read, write = readXOAuth2, encodeXOAuth2
		}
		user, token, err := read([]byte(test.msg))
		if user != test.user || string(token) != test.token || (err == nil) != test.ok || err != nil && !errors.Is(err, ErrMalformed) {
			t.Errorf("%q: got %q, %q, %v", test.msg, user, token, err)
		}
		if err != nil || user == "" {
			continue
		}
		msg, err := write(user, token)
		if err != nil {
			t.Errorf("%q: %v", test.msg, err)
			continue
		}
		if again, same, err := read(msg); again != user || !bytes.Equal(same, token) || err != nil {
			t.Errorf("%q: written %q, read %q, %q, %v", test.msg, msg, again, same, err)
		}
	}
	for _, test := range [][2]string{{"", "t"}, {"a\x01auth=Bearer x", "t"}, {"a", ""}, {"a", "t\x01"}, {"a", "t u"}} {
		if msg, err := encodeOAuthBearer(test[0], []byte(test[1])); err == nil {
			t.Errorf("%q: written %q", test, msg)
		}
		if msg, err := encodeXOAuth2(test[0], []byte(test[1])); err == nil {
			t.Errorf("%q: written %q", test, msg)
		}
	}
}

func TestExchange(t *testing.T) {
	tests := []struct {
		mechanism  string
		answers    []string
		challenges []string
		want       login.Attempt // zero: refused
	}{
		{"plain", []string{"\x00anna\x00pw"}, []string{""}, login.Attempt{Name: "anna", Mechanism: login.MechanismPassword, Secret: []byte("pw")}},
		{"PLAIN", []string{"anna\x00anna\x00pw"}, []string{""}, login.Attempt{Name: "anna", Mechanism: login.MechanismPassword, Secret: []byte("pw")}},
		{"PLAIN", []string{"b\x00a\x00pw"}, []string{""}, login.Attempt{Name: "a", Authorize: "b", Mechanism: login.MechanismPassword, Secret: []byte("pw")}},
		{"PLAIN", []string{""}, []string{""}, login.Attempt{}},
		{"LOGIN", []string{"anna", "pw"}, []string{"Username:", "Password:"}, login.Attempt{Name: "anna", Mechanism: login.MechanismPassword, Secret: []byte("pw")}},
		{"LOGIN", []string{"", "pw"}, []string{"Username:"}, login.Attempt{}},
		{"LOGIN", []string{"an\x00na"}, []string{"Username:"}, login.Attempt{}},
		{"LOGIN", []string{"anna", "p\x00w"}, []string{"Username:", "Password:"}, login.Attempt{}},
		{"LOGIN", []string{"anna", ""}, []string{"Username:", "Password:"}, login.Attempt{}},
		{"OAUTHBEARER", []string{"n,,\x01auth=Bearer abc\x01\x01"}, []string{""}, login.Attempt{}},
		{"OAUTHBEARER", []string{"n,a=a,\x01auth=Bearer abc\x01\x01"}, []string{""}, login.Attempt{Name: "a", Mechanism: login.MechanismOAuthBearer, Secret: []byte("abc")}},
		{"XOAUTH2", []string{"user=a\x01auth=Bearer abc\x01\x01"}, []string{""}, login.Attempt{Name: "a", Mechanism: login.MechanismXOAuth2, Secret: []byte("abc")}},
	}
	for _, test := range tests {
		e, ok := Begin(test.mechanism)
		if !ok || e.mechanism != strings.ToUpper(test.mechanism) {
			t.Fatalf("%s: %v, %v", test.mechanism, e, ok)
		}
		done, err := false, error(nil)
		var challenges []string
		for _, answer := range test.answers {
			challenges = append(challenges, string(e.Challenge()))
			if done, err = e.Respond([]byte(answer)); done || err != nil {
				break
			}
		}
		if strings.Join(challenges, "|") != strings.Join(test.challenges, "|") {
			t.Errorf("%q: challenges %q", test.answers, challenges)
		}
		if test.want.Name == "" {
			if !errors.Is(err, ErrMalformed) || done || e.Attempt() != nil {
				t.Errorf("%q: got %v, %v", test.answers, done, err)
			}
			continue
		}
		a := e.Attempt()
		if err != nil || !done || a.Name != test.want.Name || a.Authorize != test.want.Authorize ||
			a.Mechanism != test.want.Mechanism || !bytes.Equal(a.Secret, test.want.Secret) {
			t.Errorf("%q: got %+v, %v", test.answers, a, err)
		}
	}
	for _, mechanism := range []string{"", "GSSAPI", "PLAIN-", "EXTERNAL"} {
		if _, ok := Begin(mechanism); ok {
			t.Errorf("%q: begun", mechanism)
		}
	}
}

func TestProve(t *testing.T) {
	password := login.Attempt{Login: `AMT\anna`, Secret: []byte("pw"), Mechanism: login.MechanismPassword}
	token := login.Attempt{Login: "anna", Secret: []byte("t"), Mechanism: login.MechanismOAuthBearer}
	xtoken := token
	xtoken.Mechanism = login.MechanismXOAuth2
	master, separator := password, password
	master.Master = &login.Master{User: "proxy", Password: "m"}
	separator.Master = &login.Master{User: "proxy", Password: "m", Separator: "*"}
	another := separator
	another.Login = "anna*boss"
	nobody, nul := password, password
	nobody.Login, nul.Secret = "", []byte("p\x00w")

	tests := []struct {
		name      string
		attempt   login.Attempt
		offered   string
		mechanism string
		messages  []string
		err       error
	}{
		{"plain before login", password, "LOGIN PLAIN", "PLAIN", []string{"\x00AMT\\anna\x00pw"}, nil},
		{"login", password, "LOGIN XOAUTH2", "LOGIN", []string{"AMT\\anna", "pw"}, nil},
		{"a password is no token", password, "XOAUTH2 OAUTHBEARER", "", nil, ErrNoMechanism},
		{"a token is no password", token, "PLAIN LOGIN", "", nil, ErrNoMechanism},
		{"the client's own first", token, "XOAUTH2 OAUTHBEARER", "OAUTHBEARER", []string{"n,a=anna,\x01auth=Bearer t\x01\x01", "\x01"}, nil},
		{"the client's own first", xtoken, "XOAUTH2 OAUTHBEARER", "XOAUTH2", []string{"user=anna\x01auth=Bearer t\x01\x01", ""}, nil},
		{"the other one", xtoken, "OAUTHBEARER", "OAUTHBEARER", []string{"n,a=anna,\x01auth=Bearer t\x01\x01", "\x01"}, nil},
		{"master", master, "PLAIN", "PLAIN", []string{"AMT\\anna\x00proxy\x00m"}, nil},
		{"master without authzid", master, "LOGIN", "", nil, ErrNoMechanism},
		{"separator", separator, "LOGIN", "LOGIN", []string{"AMT\\anna*proxy", "m"}, nil},
		{"separator", separator, "PLAIN", "PLAIN", []string{"\x00AMT\\anna*proxy\x00m"}, nil},
		{"the separator is in the login", another, "PLAIN LOGIN", "", nil, ErrMalformed},
		{"nobody", nobody, "PLAIN", "", nil, ErrMalformed},
		{"NUL", nul, "PLAIN", "", nil, ErrMalformed},
		{"NUL", nul, "LOGIN", "", nil, ErrMalformed},
	}
	for _, test := range tests {
		offers := func(m string) bool { return strings.Contains(" "+test.offered+" ", " "+m+" ") }
		secret := string(test.attempt.Secret)
		p, err := Prove(&test.attempt, offers)
		if !errors.Is(err, test.err) || (err != nil) != (p == nil) {
			t.Errorf("%s: got %v, want %v", test.name, err, test.err)
			continue
		}
		if err != nil {
			continue
		}
		var messages []string
		if p.Mechanism() != "LOGIN" {
			messages = append(messages, string(p.Initial()))
		}
		if p.Initial() != nil {
			t.Errorf("%s: an initial response twice, or of LOGIN", test.name)
		}
		for range 5 {
			if told := len(messages) >= len(p.messages); p.Told() != told {
				t.Errorf("%s: after %d messages told is %v", test.name, len(messages), p.Told())
			}
			msg, ok := p.Next()
			if !ok {
				break
			}
			messages = append(messages, string(msg))
		}
		if p.Mechanism() != test.mechanism || strings.Join(messages, "|") != strings.Join(test.messages, "|") {
			t.Errorf("%s: got %s %q, want %s %q", test.name, p.Mechanism(), messages, test.mechanism, test.messages)
		}
		p.Wipe()
		for _, m := range p.messages {
			if len(bytes.Trim(m, "\x00")) > 0 {
				t.Errorf("%s: %q is left", test.name, m)
			}
		}
		if string(test.attempt.Secret) != secret {
			t.Errorf("%s: the attempt's secret is gone", test.name)
		}
	}
}

// What a client's message means is what the platform's reader sees in the one that is
// written from it.
func FuzzMessages(f *testing.F) {
	f.Add([]byte("\x00anna\x00secret"))
	f.Add([]byte("boss\x00anna\x00secret"))
	f.Add([]byte("n,a=an=2Cna,\x01host=h\x01auth=Bearer abc\x01\x01"))
	f.Add([]byte("user=anna\x01auth=Bearer abc\x01\x01"))
	f.Fuzz(func(t *testing.T, msg []byte) {
		if authzid, name, password, err := readPlain(msg); err == nil {
			again, err := encodePlain(authzid, name, password)
			if err != nil || !bytes.Equal(again, msg) {
				t.Fatalf("PLAIN %q: written %q, %v", msg, again, err)
			}
		}
		for _, m := range []struct {
			read  func([]byte) (string, []byte, error)
			write func(string, []byte) ([]byte, error)
		}{{readOAuthBearer, encodeOAuthBearer}, {readXOAuth2, encodeXOAuth2}} {
			user, token, err := m.read(msg)
			if err != nil || user == "" {
				continue
			}
			written, err := m.write(user, token)
			if err != nil {
				continue // a name that no login can have
			}
			if u, k, err := m.read(written); err != nil || u != user || !bytes.Equal(k, token) {
				t.Fatalf("%q: written %q, read %q, %q, %v", msg, written, u, k, err)
			}
		}
		if got, err := Decode(msg, 100); err == nil && (len(got) > 100 || !bytes.Equal(Encode(got), msg)) {
			t.Fatalf("base64 %q is %q", msg, got)
		}
	})
}
