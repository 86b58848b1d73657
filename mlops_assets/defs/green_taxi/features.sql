-- One row per trip that can be judged: sixteen features known at drop-off, and whether it was paid in cash.
--
-- Dropped, as not being real trips: no fare, distance or times; fare, distance or duration of zero or less.
-- Trips without a payment type (dispatch uploads) have no target; the platform leaves them out of batch work.
-- tip_amount and total_amount are not used: card tips are recorded and cash tips are not, so they tell the answer.
SELECT
    record_id,
    lpep_pickup_datetime,
    fare_amount,
    trip_distance,
    passenger_count,
    hour(lpep_pickup_datetime) AS pickup_hour,
    isodow(lpep_pickup_datetime) - 1 AS pickup_weekday,  -- Monday is 0
    date_diff('microsecond', lpep_pickup_datetime, lpep_dropoff_datetime) / 60e6 AS trip_duration_minutes,
    coalesce(RatecodeID, 1) AS RatecodeID,
    coalesce(VendorID, 1) AS VendorID,
    coalesce(trip_type, 1) AS trip_type,
    coalesce(PULocationID, 0) AS PULocationID,
    coalesce(DOLocationID, 0) AS DOLocationID,
    coalesce(congestion_surcharge, 0) AS congestion_surcharge,
    coalesce(extra, 0) AS extra,
    coalesce(tolls_amount, 0) AS tolls_amount,
    coalesce(mta_tax, 0) AS mta_tax,
    coalesce(improvement_surcharge, 0) AS improvement_surcharge,
    CASE WHEN payment_type IS NOT NULL THEN (payment_type = 2)::INTEGER END AS is_cash
FROM raw_trips
WHERE fare_amount > 0
  AND trip_distance > 0
  AND lpep_dropoff_datetime > lpep_pickup_datetime
