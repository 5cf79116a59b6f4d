//! Days and moments as PostgreSQL counts them: from the beginning of the year 2000, in the Gregorian calendar
//! for all times.

/// Days from 1 March of the year 0 to 1 January 2000: the calendar repeats after 400 years that begin in March,
/// so that a leap day is the last of its year.
const MARCH_0_TO_2000: i64 = 730_425;
const DAYS_IN_400_YEARS: i64 = 146_097;
const DAYS_IN_100_YEARS: i64 = 36_524;
const DAYS_IN_4_YEARS: i64 = 1_461;
const DAYS_IN_YEAR: i64 = 365;
/// From March on.
const DAYS_IN_MONTHS: [i64; 12] = [31, 30, 31, 30, 31, 31, 30, 31, 30, 31, 31, 29];

const MICROSECONDS_IN_SECOND: i64 = 1_000_000;
const SECONDS_IN_DAY: i64 = 86_400;

/// Year (0 is 1 BC), month and day.
fn civil(days_since_2000: i64) -> (i64, usize, i64) {
    let days = days_since_2000 + MARCH_0_TO_2000;
    let (eras, mut left) = (
        days.div_euclid(DAYS_IN_400_YEARS),
        days.rem_euclid(DAYS_IN_400_YEARS),
    );
    // The last day of an era would begin a fifth century, and the last of four years a fifth year.
    let centuries = (left / DAYS_IN_100_YEARS).min(3);
    left -= centuries * DAYS_IN_100_YEARS;
    let fours = left / DAYS_IN_4_YEARS;
    left -= fours * DAYS_IN_4_YEARS;
    let years = (left / DAYS_IN_YEAR).min(3);
    left -= years * DAYS_IN_YEAR;
    let mut month = 3;
    for days in DAYS_IN_MONTHS {
        if left < days {
            break;
        }
        left -= days;
        month += 1;
    }
    let year = eras * 400 + centuries * 100 + fours * 4 + years;
    // January and February belong to the year that began in the March before.
    if month > 12 {
        (year + 1, month - 12, left + 1)
    } else {
        (year, month, left + 1)
    }
}

/// There was no year 0 before the year 1.
fn of_year(days: i64) -> (String, &'static str) {
    let (year, month, day) = civil(days);
    let (year, era) = if year > 0 { (year, "") } else { (1 - year, " BC") };
    (format!("{year:04}-{month:02}-{day:02}"), era)
}

/// Year, month and day, so many days after 1 January 2000.
pub(in crate::wire) fn day(days: i64) -> String {
    let (date, era) = of_year(days);
    format!("{date}{era}")
}

/// A `date`.
pub(super) fn date(days: i32) -> Option<String> {
    match days {
        i32::MAX => Some("infinity".to_owned()),
        i32::MIN => Some("-infinity".to_owned()),
        days => Some(day(i64::from(days))),
    }
}

/// A `timestamp`, or one of a `zone`.
pub(super) fn moment(microseconds: i64, zone: &str) -> Option<String> {
    match microseconds {
        i64::MAX => return Some("infinity".to_owned()),
        i64::MIN => return Some("-infinity".to_owned()),
        _ => {}
    }
    let seconds = microseconds.div_euclid(MICROSECONDS_IN_SECOND);
    let fraction = microseconds.rem_euclid(MICROSECONDS_IN_SECOND);
    let (date, era) = of_year(seconds.div_euclid(SECONDS_IN_DAY));
    let second = seconds.rem_euclid(SECONDS_IN_DAY);
    let (hours, minutes, seconds) = (second / 3_600, second / 60 % 60, second % 60);
    let fraction = match fraction {
        0 => String::new(),
        fraction => format!(".{fraction:06}").trim_end_matches('0').to_owned(),
    };
    Some(format!(
        "{date} {hours:02}:{minutes:02}:{seconds:02}{fraction}{zone}{era}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_have_their_dates() {
        for (days, expected) in [
            (0, "2000-01-01"),
            (59, "2000-02-29"),
            (60, "2000-03-01"),
            (-1, "1999-12-31"),
            (366, "2001-01-01"),
            (36_524, "2099-12-31"),
            (36_583, "2100-02-28"),
            (36_584, "2100-03-01"),
            (-10_957, "1970-01-01"),
            (-730_119, "0001-01-01"),
            (-730_120, "0001-12-31 BC"),
            (-730_426, "0001-02-29 BC"),
        ] {
            assert_eq!(date(days).unwrap(), expected, "{days}");
        }
    }

    #[test]
    fn every_day_follows_the_one_before() {
        let mut before = civil(-800_000);
        for days in -799_999..800_000 {
            let (year, month, day) = civil(days);
            let next = (year, month) == (before.0, before.1) && day == before.2 + 1;
            let new_month = day == 1
                && (year * 12 + i64::try_from(month).unwrap())
                    == before.0 * 12 + i64::try_from(before.1).unwrap() + 1;
            assert!(next || new_month, "{before:?} {year}-{month}-{day}");
            before = (year, month, day);
        }
    }

    #[test]
    fn moments_have_their_seconds() {
        assert_eq!(moment(1_500_000, "").unwrap(), "2000-01-01 00:00:01.5");
        assert_eq!(moment(-1, "+00").unwrap(), "1999-12-31 23:59:59.999999+00");
        assert_eq!(moment(i64::MAX, "").unwrap(), "infinity");
    }
}
