### What mails and notifications say. Names from elsewhere come quoted and on one line.

hello = Hello,
hello-name = Hello { $name },
month = { $month ->
    [1] January
    [2] February
    [3] March
    [4] April
    [5] May
    [6] June
    [7] July
    [8] August
    [9] September
    [10] October
    [11] November
   *[12] December
}
moment = { $day } { $month } { $year }, { $clock } UTC

## A token, which the reader is to use

token = Or give this token where you are asked for it:

invitation-subject = Invitation to { $tenant }
invitation-by = { $inviter } invites you to { $tenant }.
invitation-by-nobody = You are invited to { $tenant }.
invitation-link = To accept, open this link:
invitation-end = The invitation ends on { $time }. It is for you alone: please do not forward this mail. If you did not expect it, you need not do anything.

password-reset-subject = Your new password
password-reset-asked = somebody, hopefully you, asked for a new password for this address.
password-reset-link = To choose one, open this link:
password-reset-end = This works once, until { $time }. If it was not you who asked, you need not do anything: your password stays as it is.

## Notifications

operation-failed = { $verb } of { $target } failed
ticket-answered = Ticket { $number } was answered
invitation-accepted = An invitation was accepted
key-expiring = An API key ends soon
key-expiring-body = { $name } ends on { $time }.
quota-nearly-used = A quota is nearly used
quota-nearly-used-body = { $used } of { $limit } { $amount } are used.

broadcast-subject = Announcement in { $tenant }
broadcast-of-tenant = An admin of { $tenant } has announced { $title }. Sign in to read it.

digest-subject = { $count } notifications from { $tenant }
digest-more = And { $count } more.
notified-by = This mail is about { $tenant }. To get no more mails of this kind, open this link:

