package routing

// DecideLoginDetail is [State.DecideLogin] with sub-addressing: if it is certain that nobody
// has the whole login, in whatever role, and it is an address with detail, the one without
// is asked. separator is as for [State.DecideAddress].
func (s *State) DecideLoginDetail(l Login, separator string) (d Decision) {
	if s.decide(&d, string(l), false) || d.Reason != ReasonNoSuchName {
		return d
	}
	if base, ok := Address(l).WithoutDetail(separator); ok {
		s.decide(&d, string(base), false)
	}
	return d
}

// DecidePlatformLogin decides for what one of its agency's platforms calls a mailbox as a login, or
// for what another may not be called. It is for names that stand where the platform's own name is
// expected; a name that has a meaning of its own is for [State.DecideLogin].
func (s *State) DecidePlatformLogin(l Login) (d Decision) {
	s.decide(&d, string(l), false)
	if d.Reason != ReasonNoSuchName {
		return d
	}
	h, found := hashKey(string(l)), where{agency: -1}
	for w, pos := s.index.next(h, h); w.agency >= 0; w, pos = s.index.next(h, pos) {
		if w.agency == ofFixed || w == found {
			continue
		}
		line, ok := s.line(w)
		if !ok {
			continue
		}
		var n names
		n.read(line, string(l))
		if !isLogin(n.source.Login, l) && !isLogin(n.target.Login, l) {
			continue
		}
		if found.agency >= 0 {
			return Decision{Reason: ReasonConflict}
		}
		found = w
		s.agencies[w.agency].decide(&d, line, &n)
	}
	return d
}

// isLogin reports whether a platform's login is l, in canonical form.
func isLogin(text string, l Login) bool {
	if text == "" {
		return false
	}
	own, err := ParseLogin(text)
	return err == nil && own == l
}

// LoginAt returns what a platform is told when this mailbox logs in there; false if its
// agency has no place on that platform, or the mailbox isn't known.
func (s *State) LoginAt(agency AgencyID, mailbox MailboxID, platform PlatformID) (login string, ok bool) {
	i, known := s.byID[agency]
	if !known || s.agencies[i].mapping == nil || platform == "" {
		return "", false
	}
	a := s.agencies[i]
	if platform != a.Source && platform != a.Target {
		return "", false
	}
	row, ok := a.mapping.Mailbox(mailbox)
	if !ok {
		return "", false
	}
	return row.At(platform == a.Target && platform != a.Source).Login, true
}

// Taken reports whether some mailbox, or fixed address, has this login as a key in whatever
// role, such as a platform's own name for it; also true where that can't be said.
func (s *State) Taken(l Login) bool {
	var d Decision
	return s.decide(&d, string(l), false) || d.Reason != ReasonNoSuchName
}
