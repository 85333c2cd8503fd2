package login

// Session is a login that a platform has taken, to be joined.
type Session struct{}
