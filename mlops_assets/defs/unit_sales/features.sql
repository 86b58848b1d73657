-- One row per article and scenario of the week: what is known of an article before the week begins, with its planned
-- promotions and with the opposite; and the units that were sold under the plan.
--
-- raw_sales holds the days of this week and of the 53 before it. Of this week only the promotions are looked at, which are
-- planned; its units are the target and reach no feature. A week without any planned day has no row.
WITH weeks AS (
    SELECT
        article,
        any_value(brand) AS brand,
        date_trunc('week', date)::DATE AS week,
        -- Units of a week are known when those of all its days are.
        CASE WHEN count(units) = count(*) THEN sum(units) END AS units,
        bool_or(promotion)::INTEGER AS promotion
    FROM raw_sales
    GROUP BY article, date_trunc('week', date)
),

past AS (
    SELECT *, date_diff('week', week, period_start()::DATE) AS age FROM weeks WHERE week < period_start()
),

known AS (
    SELECT
        article,
        sum(units) FILTER (age = 1) AS units_1_week_ago,
        sum(units) FILTER (age = 2) AS units_2_weeks_ago,
        sum(units) FILTER (age = 3) AS units_3_weeks_ago,
        sum(units) FILTER (age = 52) AS units_52_weeks_ago,
        avg(units) FILTER (age <= 4) AS mean_units_4_weeks,
        avg(units) FILTER (age <= 12) AS mean_units_12_weeks,
        avg(units) FILTER (age <= 52) AS mean_units_52_weeks,
        stddev_pop(units) FILTER (age <= 12) AS deviation_units_12_weeks,
        avg(units) FILTER (promotion = 1) AS mean_units_promoted,
        avg(units) FILTER (promotion = 0) AS mean_units_not_promoted,
        coalesce(sum(promotion) FILTER (age <= 12), 0) AS promoted_weeks_12,
        min(age) FILTER (promotion = 1) AS weeks_since_promotion,
        max(promotion) FILTER (age = 52) AS promoted_52_weeks_ago
    FROM past
    GROUP BY article
),

scenarios AS (
    SELECT * FROM (VALUES ('with promotion', 1), ('without promotion', 0)) AS t (scenario, promotion)
)

SELECT
    period_start()::DATE AS date,
    plan.article,
    scenarios.scenario,
    scenarios.promotion = plan.promotion AS planned,
    plan.brand,
    scenarios.promotion,
    weekofyear(period_start()) AS week_of_year,
    month(period_start()) AS month,
    units_1_week_ago,
    units_2_weeks_ago,
    units_3_weeks_ago,
    units_52_weeks_ago,
    mean_units_4_weeks,
    mean_units_12_weeks,
    mean_units_52_weeks,
    deviation_units_12_weeks,
    mean_units_promoted,
    mean_units_not_promoted,
    coalesce(promoted_weeks_12, 0) AS promoted_weeks_12,
    weeks_since_promotion,
    promoted_52_weeks_ago,
    coalesce(units_52_weeks_ago, mean_units_4_weeks) AS seasonal_naive,
    CASE WHEN planned THEN plan.units END AS units
FROM weeks AS plan
CROSS JOIN scenarios
LEFT JOIN known ON known.article = plan.article
WHERE plan.week = period_start()
  -- An article that was not sold once in the last year is not in the assortment; one that is new has no past yet.
  AND (known.mean_units_52_weeks > 0 OR known.mean_units_52_weeks IS NULL)
